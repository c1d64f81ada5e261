"""Garbage collection of tables: those of retired versions, and those that failed builds stored.

A running build registers every artifact before storing it, and a version's row is deleted after its artifacts. So a row
names all that a crash leaves, and an artifact that no ready version or running build names can be deleted: a build that
registers it later finds it missing and stores it again.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml, lock_for_transaction
from hmi.catalog.schema import RegisteredBase, TreeStatus, TreeUsage, TreeVersion
from hmi.catalog.trees.builds import ARTIFACTS_LOCK
from hmi.catalog.trees.history import lock_base, ready_versions, versions


def retired_versions(session: Session, base_id: str, keep: int = 2) -> list[TreeVersion]:
    """The ready versions that are neither served nor among the `keep` that were published last, newest first."""
    served = session.scalars(select(RegisteredBase.tree_number).where(RegisteredBase.id == base_id)).one_or_none()
    ready = ready_versions(session, base_id)
    kept = {served, *(version.number for version in ready[:keep])}
    retired = [version for version in ready if version.number not in kept]
    return sorted(retired, key=lambda version: version.number, reverse=True)


def retire_versions(session: Session, base_id: str, keep: int = 2) -> list[str]:
    """Retire the `retired_versions`; return the artifact digests that no version needs any more.

    From the commit on they are in `find_garbage`. Also deletes older failed versions without tables, and the lookup
    counts of versions that are gone.
    """
    lock_base(session, base_id)
    retired = retired_versions(session, base_id, keep)
    numbers = [version.number for version in retired]
    kept = {version.number for version in ready_versions(session, base_id)}.difference(numbers)
    empty = [
        version.number
        for version in versions(session, base_id)
        if version.status is TreeStatus.FAILED and version.number < min(kept, default=0) and not version.tables
    ]
    execute_dml(session, delete(TreeVersion).where(TreeVersion.base_id == base_id, TreeVersion.number.in_(empty)))
    # Of earlier versions too: a worker may record lookups after a version was retired.
    gone = (TreeUsage.base_id == base_id, TreeUsage.number > 0, TreeUsage.number.not_in(kept))
    execute_dml(session, delete(TreeUsage).where(*gone))
    failed = update(TreeVersion).where(TreeVersion.base_id == base_id, TreeVersion.number.in_(numbers))
    execute_dml(session, failed.values(status=TreeStatus.FAILED, error="retired: its tables are being deleted"))
    return sorted({digest for version in retired for digest in version.tables.values()} - _needed(session))


def find_garbage(session: Session) -> list[tuple[str, int, tuple[str, ...]]]:
    """(base id, number, artifact digests) of the failed and retired versions that name tables.

    Some of these may be needed by another version; `delete_if_unneeded` spares them.
    """
    failed = select(TreeVersion).where(TreeVersion.status == TreeStatus.FAILED)
    return [
        (version.base_id, version.number, tuple(sorted(set(version.tables.values()))))
        for version in session.scalars(failed.order_by(TreeVersion.base_id, TreeVersion.number))
        if version.tables
    ]


def delete_if_unneeded(session: Session, artifact: str, delete_artifact: Callable[[str], None]) -> bool:
    """Call `delete_artifact` unless a ready version or a running build names the artifact; return whether.

    No build registers an artifact meanwhile.
    """
    lock_for_transaction(session, ARTIFACTS_LOCK)
    if artifact in _needed(session):
        return False
    delete_artifact(artifact)
    return True


def forget_tables(session: Session, base_id: str, number: int) -> None:
    """Record that the artifacts of a failed or retired version are deleted: a retired version's row goes, a failed
    build's stays with its error."""
    failed = (TreeVersion.base_id == base_id, TreeVersion.number == number, TreeVersion.status == TreeStatus.FAILED)
    execute_dml(session, delete(TreeVersion).where(*failed, TreeVersion.published_at.is_not(None)))
    execute_dml(session, update(TreeVersion).where(*failed).values(tables={}))


def _needed(session: Session) -> set[str]:
    """Artifacts that a ready version or a running build names."""
    tables = select(TreeVersion.tables).where(TreeVersion.status != TreeStatus.FAILED)
    return {digest for named in session.scalars(tables) for digest in named.values()}
