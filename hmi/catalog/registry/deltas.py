"""Domain deltas: a LoRA on a base model's lower layers, for a domain and its descendants.

A delta that was trained on one tenant's text is that tenant's own. Until the tenant publishes it, it is set on private
domains of that tenant alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml, insert_or, now
from hmi.catalog.registry.domains import DomainView, get_domain, list_domains, lock_domains, parents
from hmi.catalog.registry.names import check_json
from hmi.catalog.registry.tenants import Principal, get_tenant
from hmi.catalog.schema import Audience, Domain, DomainDelta, Tenant
from hmi.errors import Conflict, Forbidden, NotFound


@dataclass(frozen=True, slots=True)
class DeltaView:
    """A domain's own delta."""

    domain: str  # its name
    artifact: str  # digest of the weights
    summary: Mapping[str, Any] = field(hash=False)  # rank, layers, sites and so on, for listings
    created_at: float
    owner: str | None = None  # name of the tenant on whose text it was trained; None: the operator's own
    is_published: bool = False  # whether the owner lets others use it


def require_delta_domain(session: Session, principal: Principal, domain: str) -> DomainView:
    """Return the domain if the principal may set, see and remove its delta: an admin any, a tenant its private ones.

    Raises `NotFound`, the same for a domain that the tenant may not use; `Forbidden` for one that is not its own.
    """
    if principal.is_admin:
        return get_domain(session, domain)
    found = get_domain(session, domain, tenant_id=principal.tenant_id)
    if not _is_private_of(found, principal.tenant_id):
        raise Forbidden(f"a tenant sets deltas on its private domains alone, and {domain} is none")
    return found


def set_delta(
    session: Session,
    base_id: str,
    domain: str,
    artifact: str,
    summary: Mapping[str, Any],
    *,
    owner: str | None = None,
    principal: Principal | None = None,
) -> DeltaView:
    """Set or replace the delta of the domain, by name; `owner` names the tenant on whose text it was trained.

    A tenant's principal sets deltas of its own on its private domains. Rows that were stored for the earlier function
    are no longer looked up. Raises `NotFound` (domain, owner), `Forbidden`, `InvalidInput`, `Conflict` where an
    unpublished delta would be set on another domain than its owner's private ones.
    """
    check_json(dict(summary), param="summary")
    lock_domains(session)
    owned = [DomainDelta.artifact == artifact, DomainDelta.owner_id.is_not(None)]
    if principal is None or principal.is_admin:
        place = get_domain(session, domain)
        owner_id = get_tenant(session, owner, param="owner").id if owner else None
    else:
        place, owner_id = require_delta_domain(session, principal, domain), principal.tenant_id
        # It learns nothing of others who have the same weights.
        owned.append(DomainDelta.owner_id == owner_id)
    recorded = session.execute(select(DomainDelta.owner_id, DomainDelta.is_published).where(*owned)).all()
    is_published = any(row[0] == owner_id and row[1] for row in recorded)
    unpublished = {row[0] for row in recorded if not row[1]}
    if owner_id is not None and not is_published:
        unpublished.add(owner_id)
    if not all(_is_private_of(place, each) for each in unpublished):
        message = f"this delta is a tenant's own and not published, and {domain} is no private domain of that tenant"
        raise Conflict(message, code="delta_not_published", param="domain")
    values = {"artifact": artifact, "summary": dict(summary), "created_at": now(), "is_published": is_published}
    values["owner_id"] = owner_id or next(iter(unpublished), None)
    key = {"base_id": base_id, "domain_id": place.id}
    insert = insert_or(session, DomainDelta).values(**key, **values)
    execute_dml(session, insert.on_conflict_do_update(index_elements=list(key), set_=values))
    return get_delta(session, base_id, domain)


def publish_delta(session: Session, principal: Principal, base_id: str, domain: str) -> DeltaView:
    """Let others use a delta, for ever: the operator may then set it on any domain. A second call changes nothing.

    Raises `NotFound`, `Forbidden` for all but the tenant that owns it.
    """
    lock_domains(session)
    require_delta_domain(session, principal, domain)
    delta = get_delta(session, base_id, domain)
    if delta.owner != principal.tenant_name:
        raise Forbidden("only the tenant that owns a delta publishes it")
    same = (DomainDelta.artifact == delta.artifact, DomainDelta.owner_id == principal.tenant_id)
    execute_dml(session, update(DomainDelta).where(*same).values(is_published=True))
    return get_delta(session, base_id, domain)


def get_delta(session: Session, base_id: str, domain: str) -> DeltaView:
    """Return the domain's own delta, not an ancestor's. Raises `NotFound`."""
    row = session.execute(_views(base_id).where(Domain.name == domain)).one_or_none()
    if row is None:
        get_domain(session, domain)
        raise NotFound(f"domain {domain[:80]!r} has no delta of its own", code="delta_not_found", param="domain")
    return DeltaView(*row)


def list_deltas(session: Session, base_id: str, principal: Principal | None = None) -> list[DeltaView]:
    """All deltas of a base model, by domain; with a tenant's principal those of its private domains."""
    found = [DeltaView(*row) for row in session.execute(_views(base_id).order_by(Domain.name))]
    if principal is None or principal.is_admin:
        return found
    own = {each.name for each in list_domains(session) if _is_private_of(each, principal.tenant_id)}
    return [delta for delta in found if delta.domain in own]


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


def _is_private_of(domain: DomainView, tenant_id: str | None) -> bool:
    return domain.audience is Audience.PRIVATE and domain.owner_id == tenant_id


def _views(base_id: str) -> Select[str, str, dict[str, Any], float, str, bool]:
    columns = (Domain.name, DomainDelta.artifact, DomainDelta.summary, DomainDelta.created_at)
    return (
        select(*columns, Tenant.name, DomainDelta.is_published)
        .join(Domain, Domain.id == DomainDelta.domain_id)
        .outerjoin(Tenant, Tenant.id == DomainDelta.owner_id)
        .where(DomainDelta.base_id == base_id)
    )
