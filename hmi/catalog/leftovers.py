"""Tables that no tree needs any more: those of retired versions, and what builds that failed had stored.

A running build's row names every artifact before it is stored (`trees.announce`), and a version's row goes only after
its artifacts. So what anybody who died has left behind is known by a row, and an artifact that no other row names can
be deleted: who announces it later finds it gone and stores it again.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import change, lock_for_transaction
from hmi.catalog.tables import BaseModel, TreeStatus, TreeUsage, TreeVersion
from hmi.catalog.trees import ARTIFACTS_LOCK, lock_base, ready_versions, versions

__all__ = ["clear", "cleared", "forget_retired", "litter", "retired"]


def retired(session: Session, base_id: str, keep: int = 2) -> list[TreeVersion]:
    """The ready versions that are neither served nor among the `keep` that were last put into service, newest first."""
    served = session.scalars(select(BaseModel.tree_number).where(BaseModel.id == base_id)).one_or_none()
    kept = [version.number for version in ready_versions(session, base_id)[:keep]]
    return [
        version
        for version in versions(session, base_id)
        if version.status is TreeStatus.READY and version.number not in kept and version.number != served
    ]


def forget_retired(session: Session, base_id: str, keep: int = 2) -> list[str]:
    """Give retired versions up, and forget failed ones from before those that are kept; gives the tables' artifact
    digests that no version of any tree needs any more.

    Those artifacts are `litter` from now on, to be deleted after the commit.
    """
    lock_base(session, base_id)
    old = retired(session, base_id, keep)
    numbers = [version.number for version in old]
    kept = {version.number for version in ready_versions(session, base_id)} - set(numbers)
    empty = [
        version.number
        for version in versions(session, base_id)
        if version.status is TreeStatus.FAILED and version.number < min(kept, default=0) and not version.tables
    ]
    change(session, delete(TreeVersion).where(TreeVersion.base_id == base_id, TreeVersion.number.in_(empty)))
    # Of versions that went earlier too: what was looked up in one may be written down after its end.
    gone = (TreeUsage.base_id == base_id) & (TreeUsage.number > 0) & TreeUsage.number.not_in(kept)
    change(session, delete(TreeUsage).where(gone))
    given_up = update(TreeVersion).where(TreeVersion.base_id == base_id, TreeVersion.number.in_(numbers))
    change(session, given_up.values(status=TreeStatus.FAILED, error="retired: its tables are being deleted"))
    return sorted({digest for version in old for digest in version.tables.values()} - _named(session))


def litter(session: Session) -> list[tuple[str, int, tuple[str, ...]]]:
    """What failed builds announced and retired versions held: base model's id, number, artifact digests. Those that
    another version names too are for `clear` to spare."""
    by_place = select(TreeVersion).order_by(TreeVersion.base_id, TreeVersion.number)
    failed = session.scalars(by_place.where(TreeVersion.status == TreeStatus.FAILED))
    return [
        (version.base_id, version.number, tuple(sorted(set(version.tables.values()))))
        for version in failed
        if version.tables
    ]


def clear(session: Session, artifact: str, destroy: Callable[[str], None]) -> bool:
    """Call `destroy` with the artifact where neither a ready version nor a running build names it, and gives whether.

    No build can announce it meanwhile, and one that announces it later finds it gone and stores it again.
    """
    lock_for_transaction(session, ARTIFACTS_LOCK)
    if artifact in _named(session):
        return False
    destroy(artifact)
    return True


def cleared(session: Session, base_id: str, number: int) -> None:
    """The artifacts of a failed build or a retired version are gone, or another's. Of a build its row goes on to say
    why it failed."""
    failed = (TreeVersion.base_id == base_id) & (TreeVersion.status == TreeStatus.FAILED)
    mine = failed & (TreeVersion.number == number)
    change(session, delete(TreeVersion).where(mine, TreeVersion.published_at.is_not(None)))
    change(session, update(TreeVersion).where(mine).values(tables={}))


def _named(session: Session) -> set[str]:
    """Artifacts that a ready version or a running build names."""
    tables = select(TreeVersion.tables).where(TreeVersion.status != TreeStatus.FAILED)
    return {digest for named in session.scalars(tables) for digest in named.values()}
