"""Domain deltas: a LoRA on a base model's lower layers, for a domain and its descendants."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml, insert_or, now
from hmi.catalog.registry.domains import get_domain, parents
from hmi.catalog.registry.names import check_json
from hmi.catalog.schema import Domain, DomainDelta
from hmi.errors import NotFound


@dataclass(frozen=True, slots=True)
class DeltaView:
    """A domain's own delta."""

    domain: str  # its name
    artifact: str  # digest of the weights
    summary: Mapping[str, Any] = field(hash=False)  # rank, layers, sites and so on, for listings
    created_at: float


def set_delta(session: Session, base_id: str, domain: str, artifact: str, summary: Mapping[str, Any]) -> DeltaView:
    """Set or replace the delta of the domain, by name. Raises `NotFound` (the domain), `InvalidInput`.

    Rows that were stored for the earlier function are no longer looked up.
    """
    check_json(dict(summary), param="summary")
    values = {"artifact": artifact, "summary": dict(summary), "created_at": now()}
    key = {"base_id": base_id, "domain_id": get_domain(session, domain).id}
    insert = insert_or(session, DomainDelta).values(**key, **values)
    execute_dml(session, insert.on_conflict_do_update(index_elements=list(key), set_=values))
    return get_delta(session, base_id, domain)


def get_delta(session: Session, base_id: str, domain: str) -> DeltaView:
    """Return the domain's own delta, not an ancestor's. Raises `NotFound`."""
    row = session.execute(_views(base_id).where(Domain.name == domain)).one_or_none()
    if row is None:
        get_domain(session, domain)
        raise NotFound(f"domain {domain[:80]!r} has no delta of its own", code="delta_not_found", param="domain")
    return DeltaView(*row)


def list_deltas(session: Session, base_id: str) -> list[DeltaView]:
    """All deltas of a base model, by domain."""
    return [DeltaView(*row) for row in session.execute(_views(base_id).order_by(Domain.name))]


def delta_artifacts(session: Session, base_id: str) -> dict[str, str]:
    """Artifact digest of each domain's own delta, by the domain's name."""
    return {delta.domain: delta.artifact for delta in list_deltas(session, base_id)}


def nearest_deltas(session: Session, places: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the artifact of the nearest delta among a domain and its ancestors, by (base id, domain name).

    Places without a delta are absent. One query, and a second one if there are deltas at all.
    """
    if not places:
        return {}
    own = {
        (row[0], row[1]): row[2]
        for row in session.execute(
            select(DomainDelta.base_id, Domain.name, DomainDelta.artifact)
            .join(Domain, Domain.id == DomainDelta.domain_id)
            .where(DomainDelta.base_id.in_({base_id for base_id, _ in places}))
        )
    }
    above = parents(session) if own else {}
    found: dict[tuple[str, str], str] = {}
    for base_id, domain in places if own else ():
        at: str | None = domain
        while at is not None and (base_id, at) not in own:
            at = above[at]
        if at is not None:
            found[base_id, domain] = own[base_id, at]
    return found


def remove_delta(session: Session, base_id: str, domain: str) -> DeltaView:
    """Remove the domain's own delta and return it. Raises `NotFound`."""
    removed = get_delta(session, base_id, domain)
    key = (DomainDelta.base_id == base_id) & (DomainDelta.domain_id == get_domain(session, domain).id)
    execute_dml(session, delete(DomainDelta).where(key))
    return removed


def _views(base_id: str) -> Select[str, str, dict[str, Any], float]:
    return (
        select(Domain.name, DomainDelta.artifact, DomainDelta.summary, DomainDelta.created_at)
        .join(Domain, Domain.id == DomainDelta.domain_id)
        .where(DomainDelta.base_id == base_id)
    )
