"""Versions of a base model's knowledge tree: built beside, published by one pointer, the last ones kept.

While a build runs, its row names every artifact before it is stored; see `leftovers` for what that is good for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import change, insert_or, lock_for_transaction, now
from hmi.catalog.tables import BaseModel, Domain, TreeStatus, TreeUsage, TreeVersion
from hmi.errors import Conflict, NotFound

__all__ = [
    "ARTIFACTS_LOCK",
    "PublishedTree",
    "Usage",
    "announce",
    "begin_build",
    "building",
    "extend_build",
    "fail_build",
    "fail_lapsed",
    "is_rolled_back",
    "lock_base",
    "open_requests",
    "publish",
    "published",
    "ready_versions",
    "record_all_usage",
    "record_usage",
    "request_rebuild",
    "requested_version",
    "rollback",
    "usage",
    "versions",
]

# Builds of a requested tree that may fail before the request is closed.
_MAX_REQUESTED_BUILDS = 3

ARTIFACTS_LOCK = 0x7AB1E  # of naming and deleting tables' artifacts, see `lock_for_transaction`


@dataclass(frozen=True, slots=True)
class PublishedTree:
    """The version that workers serve from.

    Attributes:
        tables: Artifact digest of each domain's table, by the domain's name.
    """

    number: int
    tables: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """What lookups found in a version; see `tables.TreeUsage`."""

    lookups: int
    hits: int
    inherited: int = 0
    approximate: int = 0


def begin_build(session: Session, base_id: str, lease_seconds: float) -> int:
    """Take the building of a base model's tree; gives the new version's number.

    Raises `Conflict` while another build's lease runs (one whose lease ran out is failed first), `NotFound`.
    """
    lock_base(session, base_id)
    fail_lapsed(session, base_id)
    busy = session.scalars(select(TreeVersion.number).where(_building(base_id))).one_or_none()
    if busy is not None:
        raise Conflict(f"version {busy} of this tree is being built already", code="build_in_progress")
    number = _last_number(session, base_id) + 1
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


def request_rebuild(session: Session, base_id: str) -> int:
    """Record a request and return the number of the version that will contain every count committed so far.

    A build that runs already does not answer it, since it may have read the counts: the next one does. Requests that
    arrive before that build begins share it. Raises `NotFound`.
    """
    lock_base(session, base_id)
    number = _last_number(session, base_id) + 1
    change(session, update(BaseModel).where(BaseModel.id == base_id).values(requested_tree=number))
    return number


def requested_version(session: Session, base_id: str) -> int | None:
    """Return the least version number that answers the open request, None where no request is open.

    A request is closed by publishing that version or a later one, by a rollback, and by `_MAX_REQUESTED_BUILDS` builds
    that fail.
    """
    requested = session.scalars(select(BaseModel.requested_tree).where(BaseModel.id == base_id)).one_or_none()
    if requested is None:
        return None
    ended = _last_number(session, base_id, TreeVersion.status != TreeStatus.BUILDING)
    return requested if ended < requested + _MAX_REQUESTED_BUILDS - 1 else None


def open_requests(session: Session) -> list[str]:
    """Return the names of the base models whose request waits for a build to begin."""
    requested = select(BaseModel.id, BaseModel.name).where(BaseModel.requested_tree.is_not(None))
    running = {base_id for base_id, _ in building(session)}
    return [
        name
        for base_id, name in session.execute(requested.order_by(BaseModel.name)).all()
        if base_id not in running and requested_version(session, base_id) is not None
    ]


def extend_build(
    session: Session, base_id: str, number: int, lease_seconds: float, progress: Mapping[str, Any] | None = None
) -> bool:
    """Prolong a build's lease to `lease_seconds` from now; False where the build was failed meanwhile.

    Args:
        progress: How far it is, for whoever watches; None leaves what was said before.
    """
    held = update(TreeVersion).where(_building(base_id), TreeVersion.number == number)
    said = {} if progress is None else {"progress": dict(progress)}
    return change(session, held.values(lease_until=now() + lease_seconds, **said)) > 0


def announce(session: Session, base_id: str, number: int, domain: str, artifact: str) -> None:
    """Have the build name a table's artifact before it is stored, so that nobody deletes it and a crash leaves nothing
    unknown behind. To be committed before the storing. Raises `Conflict` where it is not being built (any more)."""
    lock_for_transaction(session, ARTIFACTS_LOCK)
    built = _building(base_id) & (TreeVersion.number == number)
    version = session.scalars(select(TreeVersion).where(built).with_for_update()).one_or_none()
    if version is None:
        raise _lost(number)
    version.tables = {**version.tables, domain: artifact}
    session.flush()


def building(session: Session) -> set[tuple[str, int]]:
    """Base model's id and number of every build whose lease runs."""
    runs = (TreeVersion.status == TreeStatus.BUILDING) & (TreeVersion.lease_until >= now())
    return {(row[0], row[1]) for row in session.execute(select(TreeVersion.base_id, TreeVersion.number).where(runs))}


def publish(session: Session, base_id: str, number: int, tables: Mapping[str, str], report: Mapping[str, Any]) -> None:
    """Make a build the version that is served. Raises `Conflict` where it is not being built (any more), `NotFound`."""
    lock_base(session, base_id)  # before the version, as everybody does who locks both
    built = update(TreeVersion).where(_building(base_id), TreeVersion.number == number)
    values = {"status": TreeStatus.READY, "tables": dict(tables), "report": dict(report), "progress": None}
    if not change(session, built.values(**values, lease_until=None, published_at=now())):
        raise _lost(number)
    still_open = case((BaseModel.requested_tree > number, BaseModel.requested_tree))
    pointer = update(BaseModel).where(BaseModel.id == base_id)
    change(session, pointer.values(tree_number=number, requested_tree=still_open))


def fail_build(session: Session, base_id: str, number: int, reason: str, *, count_failure: bool = True) -> bool:
    """Give a build up; what is served stays. False where it is not being built (any more).

    Args:
        count_failure: False where the build is not at fault: an open request does not count it.
    """
    lock_base(session, base_id)
    requested = None if count_failure else requested_version(session, base_id)
    building = update(TreeVersion).where(_building(base_id), TreeVersion.number == number)
    values = {"status": TreeStatus.FAILED, "error": reason.replace("\0", "\ufffd"), "lease_until": None}
    failed = change(session, building.values(**values)) > 0
    if failed and requested is not None:
        request_rebuild(session, base_id)
    return failed


def fail_lapsed(session: Session, base_id: str | None = None) -> int:
    """Give up the builds, of one base model or of all, whose builder's lease ran out; gives how many those were."""
    lapsed = (TreeVersion.status == TreeStatus.BUILDING) & (TreeVersion.lease_until < now())
    mine = lapsed if base_id is None else lapsed & (TreeVersion.base_id == base_id)
    # Ordered: two that give up the same builds at once lock them one after the other.
    ordered = select(TreeVersion).where(mine).order_by(TreeVersion.base_id, TreeVersion.number)
    found = session.scalars(ordered.execution_options(populate_existing=True))
    failed = 0
    for version in list(found):
        key = (TreeVersion.base_id == version.base_id) & (TreeVersion.number == version.number) & lapsed
        values = {"status": TreeStatus.FAILED, "error": _death(version), "lease_until": None}
        failed += change(session, update(TreeVersion).where(key).values(**values))
    return failed


def _death(version: TreeVersion) -> str:
    reached = version.progress or {}
    where = f" at {reached['stage']}, {reached['done']} of {reached['total']} rows" if "stage" in reached else ""
    return f"the builder's lease ran out{where}"


def published(session: Session, base_id: str) -> PublishedTree | None:
    """The version that is served; None before the first."""
    row = session.execute(
        select(TreeVersion.number, TreeVersion.tables)
        .join(BaseModel, (BaseModel.id == TreeVersion.base_id) & (BaseModel.tree_number == TreeVersion.number))
        .where(BaseModel.id == base_id)
    ).one_or_none()
    return None if row is None else PublishedTree(row.number, row.tables)


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


def ready_versions(session: Session, base_id: str) -> list[TreeVersion]:
    """The ready ones of them, the one that was put into service last first."""
    ready = [version for version in versions(session, base_id) if version.status is TreeStatus.READY]
    return sorted(ready, key=lambda version: (version.published_at or 0.0, version.number), reverse=True)


def is_rolled_back(session: Session, base_id: str) -> bool:
    """Whether somebody chose to serve an earlier version than the newest: a schedule shall not undo that."""
    served = session.scalars(select(BaseModel.tree_number).where(BaseModel.id == base_id)).one_or_none()
    return served is not None and any(version.number > served for version in ready_versions(session, base_id))


def rollback(session: Session, base_id: str, to: int | None = None) -> int:
    """Serve another version that is still kept; gives its number.

    A build that runs is given up, and an open request is closed: what the build copies is in doubt, and both would undo
    this. So would the schedule, which leaves the tree alone (`is_rolled_back`) until a rebuild is requested.

    Args:
        to: Its number; None for the version of a lower number that was served last.

    Raises `NotFound` where there is no version `to`, `Conflict` where it is served already or never was finished, or
    where there is none to go back to.
    """
    base = lock_base(session, base_id)
    served = base.tree_number or 0
    ready = [version.number for version in ready_versions(session, base_id)]
    if to is None:
        to = next((number for number in ready if number < served), None)
        if to is None:
            raise Conflict(f"the tree of {base.name} has no version to go back to")
    elif to == served:
        raise Conflict(f"version {to} of the tree of {base.name} is served already", param="to")
    elif to not in ready:
        known = [version.number for version in versions(session, base_id)]
        if to in known:
            raise Conflict(f"version {to} of the tree of {base.name} was not built to its end", param="to")
        kept = f"; kept are {', '.join(map(str, sorted(ready)))}" if ready else ""
        raise NotFound(f"the tree of {base.name} has no version {to}{kept}", code="version_not_found", param="to")
    given_up = {"status": TreeStatus.FAILED, "error": f"the tree was rolled back to version {to}", "lease_until": None}
    change(session, update(TreeVersion).where(_building(base_id)).values(**given_up))
    served_again = (TreeVersion.base_id == base_id) & (TreeVersion.number == to)
    change(session, update(TreeVersion).where(served_again).values(published_at=now()))
    change(session, update(BaseModel).where(BaseModel.id == base_id).values(tree_number=to, requested_tree=None))
    return to


def record_usage(
    session: Session,
    base_id: str,
    number: int,
    domain_id: str,
    *,
    lookups: int,
    hits: int,
    inherited: int = 0,
    approximate: int = 0,
) -> None:
    """Add to what lookups found in a version; 0 stands for no tree."""
    record_all_usage(session, {(base_id, number, domain_id): Usage(lookups, hits, inherited, approximate)})


def record_all_usage(session: Session, found: Mapping[tuple[str, int, str], Usage]) -> None:
    """As `record_usage`, by base id, number and domain id, in one go."""
    insert = insert_or(session, TreeUsage)
    names = [field.name for field in fields(Usage)]
    sums = {name: getattr(TreeUsage, name) + insert.excluded[name] for name in names}
    places = ("base_id", "number", "domain_id")
    rows = [
        dict(zip(places, place, strict=True)) | asdict(each)
        for place, each in sorted(found.items(), key=lambda item: item[0])
    ]
    if rows:
        upsert = insert.on_conflict_do_update(index_elements=list(places), set_=sums)
        session.connection().execute(upsert, rows)


def usage(session: Session, base_id: str, number: int) -> dict[str, Usage]:
    """What lookups found in a version, by domain name."""
    rows = session.execute(
        select(Domain.name, TreeUsage.lookups, TreeUsage.hits, TreeUsage.inherited, TreeUsage.approximate)
        .join(Domain, Domain.id == TreeUsage.domain_id)
        .where(TreeUsage.base_id == base_id, TreeUsage.number == number)
    )
    return {row[0]: Usage(*row[1:]) for row in rows}


def _lost(number: int) -> Conflict:
    return Conflict(f"version {number} of this tree is not being built", code="build_lost")


def _last_number(session: Session, base_id: str, *where: Any) -> int:
    return (
        session.scalars(select(func.max(TreeVersion.number)).where(TreeVersion.base_id == base_id, *where)).one() or 0
    )


def _building(base_id: str) -> Any:
    return (TreeVersion.base_id == base_id) & (TreeVersion.status == TreeStatus.BUILDING)


def lock_base(session: Session, base_id: str) -> BaseModel:
    """Let nobody else begin a build, publish, roll back or forget versions before this transaction ends.

    Raises `NotFound`.
    """
    base = session.scalars(
        select(BaseModel)
        .where(BaseModel.id == base_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if base is None:
        raise NotFound(f"there is no base model {base_id}", code="base_not_found", param="base")
    return base
