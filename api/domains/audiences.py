"""/v1/hmi/domains, for every key: the domains that the caller may use, and who else may use its own."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from api.routing import Caller, Served, Unconfined, errors, tenant_router
from hmi.catalog import Audience, DomainView, Principal, audiences, domains
from hmi.schemas import AudienceChange, DomainObject, Listing

router = tenant_router("/v1/hmi/domains", "Administration: tenants' domains")

_Name = Annotated[str, Path(description="Name of a domain.", examples=["movies"], max_length=64)]
_Tenant = Annotated[str, Path(description="Name of a tenant.", examples=["acme"], max_length=64)]


@router.get("", summary="List domains")
def list_domains(services: Served, caller: Caller) -> Listing[DomainObject]:
    """Those that you may use, by name, each with its parent; with an admin key all."""
    with services.database.session(read_only=True) as session:
        return Listing(data=[domain_view(domain, caller) for domain in domains.list_domains(session, caller)])


@router.get("/{name}", summary="Look at a domain", responses=errors(404))
def retrieve_domain(services: Served, caller: Caller, name: _Name) -> DomainObject:
    """A domain that you may not use is answered like one that does not exist."""
    tenant_id = None if caller.is_admin else caller.tenant_id
    with services.database.session(read_only=True) as session:
        return domain_view(domains.get_domain(session, name, tenant_id=tenant_id), caller)


@router.put("/{name}/audience", summary="Change who may use a domain", responses=errors(403, 404, 409))
def set_audience(services: Unconfined, caller: Caller, name: _Name, body: AudienceChange) -> DomainObject:
    """All tenants, or the owner and a list. Only the owner and admin keys may; what is private stays so.

    No tenant is excluded while it has models or open fine-tuning jobs in the domain or below it.
    """
    with services.database.session() as session:
        changed = audiences.set_audience(session, caller, name, Audience(body.audience), body.tenants)
    return domain_view(changed, caller)


@router.put("/{name}/tenants/{tenant}", summary="Let a tenant use a domain", responses=errors(403, 404, 409))
def allow_tenant(services: Unconfined, caller: Caller, name: _Name, tenant: _Tenant) -> DomainObject:
    """Add the tenant to the list of a domain whose audience is `tenants`; a second call changes nothing."""
    with services.database.session() as session:
        changed = audiences.allow(session, caller, name, tenant)
    return domain_view(changed, caller)


@router.delete("/{name}/tenants/{tenant}", summary="Exclude a tenant from a domain", responses=errors(403, 404, 409))
def deny_tenant(services: Unconfined, caller: Caller, name: _Name, tenant: _Tenant) -> DomainObject:
    """Take the tenant from the list, which is refused while it has models or open fine-tuning jobs there."""
    with services.database.session() as session:
        changed = audiences.deny(session, caller, name, tenant)
    return domain_view(changed, caller)


def domain_view(domain: DomainView, caller: Principal) -> DomainObject:
    """Return the domain as the caller sees it: names of tenants are for the owner and admin keys."""
    is_own = caller.is_admin or domain.owner_id == caller.tenant_id
    return DomainObject(
        name=domain.name,
        parent=domain.parent,
        audience=domain.audience.value,
        owner=domain.owner if is_own else None,
        tenants=list(domain.tenants) if is_own and domain.audience is Audience.TENANTS else None,
        created_at=int(domain.created_at),
    )
