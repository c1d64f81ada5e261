"""What workers' lookups found in a tree version; see `schema.TreeUsage`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from sqlalchemy import select
from sqlalchemy.orm import Session

from hmi.catalog.database import insert_or
from hmi.catalog.schema import Domain, TreeUsage


@dataclass(frozen=True, slots=True)
class HitCounts:
    """`inherited` hits and `approximate` lookups are as in `schema.TreeUsage`."""

    lookups: int
    hits: int
    inherited: int = 0
    approximate: int = 0


def record_hits(session: Session, found: Mapping[tuple[str, int, str], HitCounts]) -> None:
    """Add counts by base id, version number (0: no tree) and domain id."""
    insert = insert_or(session, TreeUsage)
    sums = {each.name: getattr(TreeUsage, each.name) + insert.excluded[each.name] for each in fields(HitCounts)}
    key = ("base_id", "number", "domain_id")
    # Sorted, so that concurrent writers do not deadlock.
    rows = [dict(zip(key, place, strict=True)) | asdict(found[place]) for place in sorted(found)]
    if rows:
        session.connection().execute(insert.on_conflict_do_update(index_elements=list(key), set_=sums), rows)


def hit_counts(session: Session, base_id: str, number: int) -> dict[str, HitCounts]:
    """What lookups found in a version, by domain name."""
    rows = session.execute(
        select(Domain.name, TreeUsage.lookups, TreeUsage.hits, TreeUsage.inherited, TreeUsage.approximate)
        .join(Domain, Domain.id == TreeUsage.domain_id)
        .where(TreeUsage.base_id == base_id, TreeUsage.number == number)
    )
    return {row[0]: HitCounts(*row[1:]) for row in rows}
