"""Builds of knowledge trees: built aside, published by moving one pointer; `rollback` moves it back.

The row of a running build names every artifact before it is stored, so that `garbage` knows what a crash left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, case, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml, lock_for_transaction, now
from hmi.catalog.schema import RegisteredBase, TreeStatus, TreeVersion
from hmi.catalog.trees.history import (
    last_number,
    lock_base,
    ready_versions,
    request_rebuild,
    requested_version,
    versions,
)
from hmi.errors import Conflict, NotFound

ARTIFACTS_LOCK = 0x7AB1E  # held to register or delete a table's artifact


def begin_build(session: Session, base_id: str, lease_seconds: float) -> int:
    """Begin a build of a base model's tree; return the new version's number.

    Raises `Conflict` while another build is leased (one with an expired lease is failed first), `NotFound`.
    """
    lock_base(session, base_id)
    fail_expired_builds(session, base_id)
    busy = session.scalars(select(TreeVersion.number).where(_is_building(base_id))).one_or_none()
    if busy is not None:
        raise Conflict(f"version {busy} of this tree is being built already", code="build_in_progress")
    number = last_number(session, base_id) + 1
    session.add(
        TreeVersion(
            base_id=base_id,
            number=number,
            status=TreeStatus.BUILDING,
            tables={},
            report={},
            lease_until=now() + lease_seconds,
            created_at=now(),
        )
    )
    session.flush()
    return number


def extend_build(
    session: Session, base_id: str, number: int, lease_seconds: float, progress: Mapping[str, Any] | None = None
) -> bool:
    """Extend a build's lease to `lease_seconds` from now; False if the build does not run any more.

    `progress` is stored for display; None keeps the last one.
    """
    values = {} if progress is None else {"progress": dict(progress)}
    extended = update(TreeVersion).where(_is_building(base_id, number))
    return execute_dml(session, extended.values(lease_until=now() + lease_seconds, **values)) > 0


def register_artifact(session: Session, base_id: str, number: int, domain: str, artifact: str) -> None:
    """Register a table's artifact with a build, to be committed before the artifact is stored.

    Raises `Conflict` if the build does not run any more.
    """
    lock_for_transaction(session, ARTIFACTS_LOCK)
    build = select(TreeVersion).where(_is_building(base_id, number))
    version = session.scalars(build.with_for_update()).one_or_none()
    if version is None:
        raise _lost(number)
    version.tables = {**version.tables, domain: artifact}
    session.flush()


def publish(session: Session, base_id: str, number: int, tables: Mapping[str, str], report: Mapping[str, Any]) -> None:
    """Serve a finished build. Raises `Conflict` if the build does not run any more, `NotFound`."""
    lock_base(session, base_id)  # the base model is always locked before its versions
    ready = {"status": TreeStatus.READY, "tables": dict(tables), "report": dict(report), "progress": None}
    finished = update(TreeVersion).where(_is_building(base_id, number))
    if not execute_dml(session, finished.values(**ready, lease_until=None, published_at=now())):
        raise _lost(number)
    still_open = case((RegisteredBase.requested_tree > number, RegisteredBase.requested_tree))
    pointer = update(RegisteredBase).where(RegisteredBase.id == base_id)
    execute_dml(session, pointer.values(tree_number=number, requested_tree=still_open))


def fail_build(session: Session, base_id: str, number: int, reason: str, *, count_failure: bool = True) -> bool:
    """Fail a build; the served version stays. False if the build does not run any more.

    An open request counts the failure unless `count_failure` is False.
    """
    lock_base(session, base_id)
    requested = None if count_failure else requested_version(session, base_id)
    failed = _fail(session, _is_building(base_id, number), reason) > 0
    if failed and requested is not None:
        request_rebuild(session, base_id)
    return failed


def fail_expired_builds(session: Session, base_id: str | None = None) -> int:
    """Fail the builds, of one base model or of all, with an expired lease; return their number."""
    expired = (TreeVersion.status == TreeStatus.BUILDING) & (TreeVersion.lease_until < now())
    mine = expired if base_id is None else expired & (TreeVersion.base_id == base_id)
    # Ordered, so that concurrent callers do not deadlock.
    ordered = select(TreeVersion).where(mine).order_by(TreeVersion.base_id, TreeVersion.number)
    failed = 0
    for version in session.scalars(ordered).all():
        at = version.progress or {}
        where = f" at {at['stage']}, {at['done']} of {at['total']} rows" if "stage" in at else ""
        condition = _is_building(version.base_id, version.number) & expired
        failed += _fail(session, condition, f"the builder's lease ran out{where}")
    return failed


def rollback(session: Session, base_id: str, to: int | None = None, *, min_tenants: int = 0) -> int:
    """Serve version `to`, by default the one of a lower number that was served last; return its number.

    A running build fails and an open request is closed, since both would undo the rollback. Scheduled rebuilds skip the
    tree (`is_rolled_back`) until a rebuild is requested.

    Raises `NotFound` if there is no version `to`, `Conflict` if it is served already or was not finished, or if there
    is no older version. Also if the version may hold n-grams that fewer than `min_tenants` tenants asked for.
    """
    base = lock_base(session, base_id)
    served = base.tree_number or 0
    ready = [version.number for version in ready_versions(session, base_id)]
    if to is None:
        to = next((number for number in ready if number < served), None)
        if to is None:
            raise Conflict(f"the tree of {base.name} has no version to roll back to")
    elif to == served:
        raise Conflict(f"version {to} of the tree of {base.name} is served already", param="to")
    elif to not in ready:
        if to in [version.number for version in versions(session, base_id)]:
            raise Conflict(f"version {to} of the tree of {base.name} was not built to its end", param="to")
        known = f"; its versions are {', '.join(map(str, sorted(ready)))}" if ready else ""
        raise NotFound(f"the tree of {base.name} has no version {to}{known}", code="version_not_found", param="to")
    _check_sharing(session, base, to, min_tenants)
    _fail(session, _is_building(base_id), f"the tree was rolled back to version {to}")
    served_again = (TreeVersion.base_id == base_id) & (TreeVersion.number == to)
    execute_dml(session, update(TreeVersion).where(served_again).values(published_at=now()))
    pointer = update(RegisteredBase).where(RegisteredBase.id == base_id)
    execute_dml(session, pointer.values(tree_number=to, requested_tree=None))
    return to


def _check_sharing(session: Session, base: RegisteredBase, number: int, min_tenants: int) -> None:
    report = session.scalars(
        select(TreeVersion.report).where(TreeVersion.base_id == base.id, TreeVersion.number == number)
    ).one()
    built = report.get("min_tenants", 0)
    if built < min_tenants:
        asked = f"fewer than {min_tenants} tenants" if built else "any number of tenants"
        raise Conflict(
            f"version {number} of the tree of {base.name} may hold n-grams that {asked} asked for; request a rebuild",
            code="version_not_private",
            param="to",
        )


def _fail(session: Session, condition: ColumnElement[bool], reason: str) -> int:
    values = {"status": TreeStatus.FAILED, "error": reason.replace("\0", "\ufffd"), "lease_until": None}
    return execute_dml(session, update(TreeVersion).where(condition).values(**values))


def _is_building(base_id: str, number: int | None = None) -> ColumnElement[bool]:
    building = (TreeVersion.base_id == base_id) & (TreeVersion.status == TreeStatus.BUILDING)
    return building if number is None else building & (TreeVersion.number == number)


def _lost(number: int) -> Conflict:
    return Conflict(f"version {number} of this tree is not being built", code="build_lost")
