"""Changes of who may use a domain. What is private stays private, and `general` is for all tenants, for ever.

A wider audience starts anew: the domain's counts and tables from before are not used for it.

The checks read rows of other tenants, so they need a session that is not confined to a tenant (`Database.for_tenant`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from sqlalchemy import delete, select, union, update
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml, now
from hmi.catalog.registry.domains import (
    DomainView,
    get_domain,
    list_domains,
    lock_domains,
    require_within,
    tenants_of,
)
from hmi.catalog.registry.tenants import Principal, get_tenant
from hmi.catalog.schema import GENERAL, OPEN_JOB, Audience, Domain, DomainTenant, FrequencyPlace, TenantModel, TuningJob
from hmi.errors import Conflict, Forbidden, InvalidInput, NotFound


def set_audience(
    session: Session, principal: Principal, name: str, audience: Audience, tenants: Sequence[str] = ()
) -> DomainView:
    """Give a domain to all tenants, or to its owner and `tenants`, by name.

    Raises `NotFound` (domain, tenants), `Forbidden` for a tenant that does not own it, `InvalidInput`, `Conflict` if it
    is private, if an excluded tenant uses it, or where an audience would be wider than one above.
    """
    domain = _lock_own(session, principal, name)
    if audience is Audience.PRIVATE:
        raise InvalidInput("only a new domain can be made private", param="audience")
    return _change(session, domain, audience, tenants_of(session, audience, tenants, domain.owner))


def allow(session: Session, principal: Principal, name: str, tenant: str) -> DomainView:
    """Let another tenant use a domain that has a list; a second call changes nothing. Raises as `set_audience`."""
    domain = _lock_own(session, principal, name)
    _require_list(domain)
    return _change(session, domain, Audience.TENANTS, domain.tenant_ids | {get_tenant(session, tenant).id})


def deny(session: Session, principal: Principal, name: str, tenant: str) -> DomainView:
    """Take a tenant from a domain's list. Raises as `set_audience`; `Conflict` for the owner."""
    domain = _lock_own(session, principal, name)
    _require_list(domain)
    if tenant == domain.owner:
        raise Conflict(f"{tenant} owns {name} and may always use it", param="tenant")
    if tenant not in domain.tenants:
        raise NotFound(f"{name} has no tenant {tenant[:80]!r} in its list", param="tenant")
    return _change(session, domain, Audience.TENANTS, domain.tenant_ids - {get_tenant(session, tenant).id})


def get_own_domain(session: Session, principal: Principal, name: str, *, param: str = "domain") -> DomainView:
    """Return a domain that the principal decides on: an admin on all, a tenant on those that it owns.

    Raises `NotFound` if the tenant may not use it, `Forbidden` if it does not own it.
    """
    if principal.is_admin:
        return get_domain(session, name, param=param)
    domain = get_domain(session, name, tenant_id=principal.tenant_id, param=param)
    if domain.owner_id != principal.tenant_id:
        raise Forbidden(f"{name} is not this tenant's own domain")
    return domain


def _lock_own(session: Session, principal: Principal, name: str) -> DomainView:
    lock_domains(session)
    domain = get_own_domain(session, principal, name)
    if domain.name == GENERAL:
        raise Conflict(f"all tenants may use {GENERAL}, for ever", param="audience")
    if domain.audience is Audience.PRIVATE:
        message = f"{name} is private, for ever: what it holds was computed from its owner's texts alone"
        raise Conflict(message, code="domain_is_private", param="audience")
    return domain


def _require_list(domain: DomainView) -> None:
    if domain.audience is not Audience.TENANTS:
        message = f"all tenants may use {domain.name}; give it the audience `tenants` first"
        raise Conflict(message, code="domain_is_public", param="audience")


def _change(session: Session, domain: DomainView, audience: Audience, tenant_ids: frozenset[str]) -> DomainView:
    changed = dataclasses.replace(domain, audience=audience, tenant_ids=tenant_ids)
    everything = list_domains(session)
    for each in everything:
        if each.name == domain.parent:
            require_within(changed, each)
        if each.parent == domain.name:
            require_within(each, changed)
    if changed.readers is not None:
        _require_unused(session, domain, _subtree(everything, domain), changed.readers)
    execute_dml(session, update(Domain).where(Domain.id == domain.id).values(audience=audience))
    if not changed.is_within(domain):
        # What fewer tenants asked for is not shown to more: n-grams are counted anew, and no older table is used.
        # The next build deletes the counts of places that are gone (`trees.forgetting`).
        execute_dml(session, update(Domain).where(Domain.id == domain.id).values(widened_at=now()))
        execute_dml(session, delete(FrequencyPlace).where(FrequencyPlace.domain_id == domain.id))
    execute_dml(session, delete(DomainTenant).where(DomainTenant.domain_id == domain.id))
    session.add_all(DomainTenant(domain_id=domain.id, tenant_id=each) for each in sorted(tenant_ids))
    session.flush()
    return get_domain(session, domain.name)


def _subtree(everything: Collection[DomainView], domain: DomainView) -> list[str]:
    """Return the ids of the domain and all below it."""
    found, names = [domain.id], {domain.name}
    while below := [each for each in everything if each.parent in names]:
        found += [each.id for each in below]
        names = {each.name for each in below}
    return found


def _require_unused(session: Session, domain: DomainView, ids: Sequence[str], readers: Collection[str]) -> None:
    """Raises `Conflict` if other tenants than `readers` have models or open jobs in the domains."""
    users = union(
        select(TenantModel.tenant_id).where(TenantModel.domain_id.in_(ids)),
        select(TuningJob.tenant_id).where(TuningJob.domain_id.in_(ids), TuningJob.state.in_(OPEN_JOB)),
    )
    if not set(session.scalars(users)) <= set(readers):
        message = f"a tenant that would be excluded has models or open fine-tuning jobs in {domain.name} or below it"
        raise Conflict(message, code="domain_in_use", param="tenants")
