"""Versions of a base model's knowledge tree: built beside, published by one pointer, the last ones kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import change, insert_or, now
from hmi.catalog.domains import parents
from hmi.catalog.tables import BaseModel, Domain, TreeStatus, TreeUsage, TreeVersion
from hmi.errors import Conflict, NotFound

__all__ = [
    "PublishedTree",
    "Usage",
    "begin_build",
    "extend_build",
    "fail_build",
    "forget_retired",
    "publish",
    "published",
    "record_usage",
    "retired",
    "rollback",
    "usage",
    "versions",
]


@dataclass(frozen=True, slots=True)
class PublishedTree:
    """The version that workers serve from.

    Attributes:
        tables: Artifact digest of each domain's table, by the domain's name.
        parents: Every domain's parent by name, as they are now.
    """

    number: int
    tables: Mapping[str, str] = field(hash=False)
    parents: Mapping[str, str | None] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Usage:
    lookups: int
    hits: int


def begin_build(session: Session, base_id: str, lease_seconds: float) -> int:
    """Take the building of a base model's tree; gives the new version's number.

    Raises `Conflict` while another build's lease runs (one whose lease ran out is failed first), `NotFound`.
    """
    _lock_base(session, base_id)
    lapsed = update(TreeVersion).where(_building(base_id), TreeVersion.lease_until < now())
    change(session, lapsed.values(status=TreeStatus.FAILED, error="the builder's lease ran out", lease_until=None))
    busy = session.scalars(select(TreeVersion.number).where(_building(base_id))).one_or_none()
    if busy is not None:
        raise Conflict(f"version {busy} of this tree is being built already", code="build_in_progress")
    last = session.scalars(select(func.max(TreeVersion.number)).where(TreeVersion.base_id == base_id)).one()
    number = (last or 0) + 1
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


def extend_build(session: Session, base_id: str, number: int, lease_seconds: float) -> bool:
    """Prolong a build's lease to `lease_seconds` from now; False where the build was failed meanwhile."""
    held = update(TreeVersion).where(_building(base_id), TreeVersion.number == number)
    return change(session, held.values(lease_until=now() + lease_seconds)) > 0


def publish(session: Session, base_id: str, number: int, tables: Mapping[str, str], report: Mapping[str, Any]) -> None:
    """Make a build the version that is served. Raises `Conflict` where it is not being built (any more)."""
    built = update(TreeVersion).where(_building(base_id), TreeVersion.number == number)
    values = {"status": TreeStatus.READY, "tables": dict(tables), "report": dict(report)}
    if not change(session, built.values(**values, lease_until=None, published_at=now())):
        raise Conflict(f"version {number} of this tree is not being built", code="build_lost")
    change(session, update(BaseModel).where(BaseModel.id == base_id).values(tree_number=number))


def fail_build(session: Session, base_id: str, number: int, reason: str) -> bool:
    """Give a build up; what is served stays. False where it is not being built (any more)."""
    building = update(TreeVersion).where(_building(base_id), TreeVersion.number == number)
    values = {"status": TreeStatus.FAILED, "error": reason.replace("\0", "\ufffd"), "lease_until": None}
    return change(session, building.values(**values)) > 0


def published(session: Session, base_id: str) -> PublishedTree | None:
    """The version that is served; None before the first."""
    row = session.execute(
        select(TreeVersion.number, TreeVersion.tables)
        .join(BaseModel, (BaseModel.id == TreeVersion.base_id) & (BaseModel.tree_number == TreeVersion.number))
        .where(BaseModel.id == base_id)
    ).one_or_none()
    return None if row is None else PublishedTree(row.number, row.tables, parents(session))


def versions(session: Session, base_id: str) -> list[TreeVersion]:
    """All versions that are still known, newest first."""
    return list(
        session.scalars(
            select(TreeVersion)
            .where(TreeVersion.base_id == base_id)
            .order_by(TreeVersion.number.desc())
            .execution_options(populate_existing=True)
        )
    )


def retired(session: Session, base_id: str, keep: int = 2) -> list[TreeVersion]:
    """The ready versions that are neither served nor among the newest `keep`, newest first."""
    served = session.scalars(select(BaseModel.tree_number).where(BaseModel.id == base_id)).one_or_none()
    ready = [version for version in versions(session, base_id) if version.status is TreeStatus.READY]
    return [version for version in ready[keep:] if version.number != served]


def forget_retired(session: Session, base_id: str, keep: int = 2) -> list[str]:
    """Delete retired versions; gives the tables' artifact digests that no version of any tree names any more.

    The caller deletes those artifacts after the commit, while no build runs that could copy from them.
    """
    _lock_base(session, base_id)
    old = retired(session, base_id, keep)
    numbers = [version.number for version in old]
    for table in (TreeVersion, TreeUsage):
        change(session, delete(table).where(table.base_id == base_id, table.number.in_(numbers)))
    named = {digest for tables in session.scalars(select(TreeVersion.tables)) for digest in tables.values()}
    return sorted({digest for version in old for digest in version.tables.values()} - named)


def rollback(session: Session, base_id: str) -> int:
    """Serve the ready version before the one that is served; gives its number. Raises `Conflict` without one."""
    base = _lock_base(session, base_id)
    number = session.scalars(
        select(func.max(TreeVersion.number)).where(
            TreeVersion.base_id == base_id,
            TreeVersion.status == TreeStatus.READY,
            TreeVersion.number < (base.tree_number or 0),
        )
    ).one()
    if number is None:
        raise Conflict(f"the tree of {base.name} has no version to go back to")
    change(session, update(BaseModel).where(BaseModel.id == base_id).values(tree_number=number))
    return number


def record_usage(session: Session, base_id: str, number: int, domain_id: str, *, lookups: int, hits: int) -> None:
    """Add to what lookups found in a version; 0 stands for no tree."""
    values = {"base_id": base_id, "number": number, "domain_id": domain_id, "lookups": lookups, "hits": hits}
    insert = insert_or(session, TreeUsage).values(**values)
    sums = {
        "lookups": TreeUsage.lookups + insert.excluded.lookups,
        "hits": TreeUsage.hits + insert.excluded.hits,
    }
    change(session, insert.on_conflict_do_update(index_elements=["base_id", "number", "domain_id"], set_=sums))


def usage(session: Session, base_id: str, number: int) -> dict[str, Usage]:
    """What lookups found in a version, by domain name."""
    rows = session.execute(
        select(Domain.name, TreeUsage.lookups, TreeUsage.hits)
        .join(Domain, Domain.id == TreeUsage.domain_id)
        .where(TreeUsage.base_id == base_id, TreeUsage.number == number)
    )
    return {row[0]: Usage(row[1], row[2]) for row in rows}


def _building(base_id: str) -> Any:
    return (TreeVersion.base_id == base_id) & (TreeVersion.status == TreeStatus.BUILDING)


def _lock_base(session: Session, base_id: str) -> BaseModel:
    base = session.scalars(
        select(BaseModel)
        .where(BaseModel.id == base_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if base is None:
        raise NotFound(f"there is no base model {base_id}", code="base_not_found", param="base")
    return base
