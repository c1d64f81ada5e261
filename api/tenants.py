"""/v1/hmi/tenants: tenants and their API keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from api.routing import Served, admin_router, errors
from hmi.catalog import OPERATOR, Role, database_time, tenants
from hmi.schemas import Deleted, KeyCreate, KeyObject, Listing, NewKeyObject, TenantCreate, TenantObject

router = admin_router("/v1/hmi/tenants", "tenants")

TenantName = Annotated[str, Path(examples=["acme"], max_length=64)]


@router.post("", summary="Create a tenant", responses=errors(409))
def create_tenant(services: Served, body: TenantCreate) -> TenantObject:
    """A tenant has its own models, files, batches and keys, and sees no other's."""
    with services.database.session() as session:
        return TenantObject.model_validate(tenants.create_tenant(session, body.name, weight=body.weight))


@router.get("", summary="List tenants")
def list_tenants(services: Served) -> Listing[TenantObject]:
    """By name, the operator's own among them."""
    with services.database.session(read_only=True) as session:
        return Listing(data=[TenantObject.model_validate(row) for row in tenants.list_tenants(session)])


@router.delete("/{name}", summary="Delete a tenant", responses=errors(404))
def delete_tenant(services: Served, name: TenantName) -> Deleted:
    """With its keys, models, files and batches, at once and for good."""
    with services.database.session() as session:
        deleted = tenants.delete_tenant(session, name)
    for path in deleted.paths:
        services.storage.delete(path)
    return Deleted(id=name, object="hmi.tenant")


@router.post("/{name}/keys", summary="Create an API key", responses=errors(404))
def create_key(services: Served, name: TenantName, body: KeyCreate) -> NewKeyObject:
    """The answer shows the whole key, this once. Keys of `operator` are admin keys."""
    role = Role.ADMIN if name == OPERATOR else Role.TENANT
    with services.database.session() as session:
        tenant = tenants.get_tenant(session, name)
        expires_at = None if body.expires_in_seconds is None else database_time(session) + body.expires_in_seconds
        key, text = tenants.create_key(session, tenant.id, role, label=body.label, expires_at=expires_at)
    return NewKeyObject(**dict(KeyObject.model_validate(key)), key=text)


@router.get("/{name}/keys", summary="List API keys", responses=errors(404))
def list_keys(services: Served, name: TenantName) -> Listing[KeyObject]:
    """A tenant's keys without their secrets, oldest first, revoked ones too."""
    with services.database.session(read_only=True) as session:
        rows = tenants.list_keys(session, tenants.get_tenant(session, name).id)
    return Listing(data=[KeyObject.model_validate(row) for row in rows])


@router.delete("/{name}/keys/{key_id}", summary="Revoke an API key", responses=errors(404))
def revoke_key(services: Served, name: TenantName, key_id: Annotated[str, Path(max_length=64)]) -> Deleted:
    """It is refused from now on; the list keeps it, marked as revoked."""
    with services.database.session() as session:
        tenants.revoke_key(session, tenants.get_tenant(session, name).id, key_id)
    return Deleted(id=key_id, object="hmi.api_key")
