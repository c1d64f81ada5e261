"""The versions of a base model's tree: served, ready, being built, and requested.

A request to rebuild a tree is answered by a build that begins after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml, now
from hmi.catalog.schema import Domain, RegisteredBase, TreeStatus, TreeVersion
from hmi.errors import NotFound

_MAX_BUILDS = 3  # of a requested tree that may fail before the request is closed


@dataclass(frozen=True, slots=True)
class PublishedTree:
    """The served version.

    It lacks the tables of domains that are newer than its build, or whose audience became wider since: a table of that
    name is another domain's, or holds what fewer tenants share.
    """

    number: int
    tables: Mapping[str, str] = field(hash=False)  # artifact digest of each domain's table, by the domain's name


def published(session: Session, base_id: str) -> PublishedTree | None:
    """Return the served version; None before the first."""
    served = (RegisteredBase.id == TreeVersion.base_id) & (RegisteredBase.tree_number == TreeVersion.number)
    statement = select(TreeVersion.number, TreeVersion.tables, TreeVersion.created_at).join(RegisteredBase, served)
    row = session.execute(statement.where(RegisteredBase.id == base_id)).one_or_none()
    if row is None:
        return None
    since = func.coalesce(Domain.widened_at, Domain.created_at)
    newer = set(session.scalars(select(Domain.name).where(since > row.created_at)))
    return PublishedTree(row.number, {name: table for name, table in row.tables.items() if name not in newer})


def versions(session: Session, base_id: str) -> list[TreeVersion]:
    """All versions with a row, newest first."""
    of_base = select(TreeVersion).where(TreeVersion.base_id == base_id).order_by(TreeVersion.number.desc())
    return list(session.scalars(of_base))


def ready_versions(session: Session, base_id: str) -> list[TreeVersion]:
    """The ready versions, the last published first."""
    ready = [version for version in versions(session, base_id) if version.status is TreeStatus.READY]
    return sorted(ready, key=lambda version: (version.published_at or 0.0, version.number), reverse=True)


def last_number(session: Session, base_id: str, *conditions: ColumnElement[bool]) -> int:
    """The greatest number of a version that meets the conditions; 0 if there is none."""
    last = select(func.max(TreeVersion.number)).where(TreeVersion.base_id == base_id, *conditions)
    return session.scalars(last).one() or 0


def is_rolled_back(session: Session, base_id: str) -> bool:
    """Whether a rollback chose an older version; scheduled rebuilds then skip the tree."""
    served = session.scalars(select(RegisteredBase.tree_number).where(RegisteredBase.id == base_id)).one_or_none()
    return served is not None and any(version.number > served for version in ready_versions(session, base_id))


def running_builds(session: Session) -> set[tuple[str, int]]:
    """(base id, number) of every build with a valid lease."""
    runs = (TreeVersion.status == TreeStatus.BUILDING) & (TreeVersion.lease_until >= now())
    return {(row[0], row[1]) for row in session.execute(select(TreeVersion.base_id, TreeVersion.number).where(runs))}


def lock_base(session: Session, base_id: str) -> RegisteredBase:
    """Exclude other transactions that begin a build, publish, roll back or retire versions. Raises `NotFound`."""
    base = session.scalars(
        select(RegisteredBase).where(RegisteredBase.id == base_id).with_for_update(key_share=True)
    ).one_or_none()
    if base is None:
        raise NotFound(f"there is no base model {base_id}", code="base_not_found", param="base")
    return base


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
