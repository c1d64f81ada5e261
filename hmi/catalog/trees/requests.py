"""Requests to rebuild a tree: each is answered by a build that begins after it."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml
from hmi.catalog.schema import RegisteredBase, TreeStatus, TreeVersion
from hmi.catalog.trees.history import last_number, lock_base, running_builds

_MAX_BUILDS = 3  # of a requested tree that may fail before the request is closed


def request_rebuild(session: Session, base_id: str) -> int:
    """Record a request and return the number of the version that will contain every count committed so far.

    A build that runs already does not answer it, since it may have read the counts: the next one does. Requests that
    arrive before that build begins share it. Raises `NotFound`.
    """
    lock_base(session, base_id)
    number = last_number(session, base_id) + 1
    execute_dml(session, update(RegisteredBase).where(RegisteredBase.id == base_id).values(requested_tree=number))
    return number


def requested_version(session: Session, base_id: str) -> int | None:
    """Return the least version number that answers the open request, None if no request is open.

    A request is closed by publishing that version or a later one, by a rollback, and by `_MAX_BUILDS` failed builds.
    """
    requested = session.scalars(select(RegisteredBase.requested_tree).where(RegisteredBase.id == base_id)).one_or_none()
    if requested is None:
        return None
    ended = last_number(session, base_id, TreeVersion.status != TreeStatus.BUILDING)
    return requested if ended < requested + _MAX_BUILDS - 1 else None


def open_requests(session: Session) -> list[str]:
    """Return the names of the base models whose request waits for a build to begin."""
    requested = select(RegisteredBase.id, RegisteredBase.name).where(RegisteredBase.requested_tree.is_not(None))
    running = {base_id for base_id, _ in running_builds(session)}
    return [
        name
        for base_id, name in session.execute(requested.order_by(RegisteredBase.name)).all()
        if base_id not in running and requested_version(session, base_id) is not None
    ]
