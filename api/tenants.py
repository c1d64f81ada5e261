"""/v1/hmi/tenants: tenants and their API keys."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import BackgroundTasks, Path, Query

from api.purge import request_purge
from api.routing import Caller, Served, admin_router, errors, tenant_router
from hmi.catalog import OPERATOR, Role, database_time, tenants
from hmi.errors import HmiError
from hmi.jobs import TaskName
from hmi.schemas import (
    Deleted,
    KeyCreate,
    KeyObject,
    Listing,
    NewKeyObject,
    OwnTenantChange,
    TenantChange,
    TenantCreate,
    TenantDeleted,
    TenantObject,
)

_log = structlog.get_logger(__name__)

router = admin_router("/v1/hmi/tenants", "tenants")
own_router = tenant_router("/v1/hmi/tenant", "tenant")

TenantName = Annotated[str, Path(examples=["acme"], max_length=64)]


@router.post("", summary="Create a tenant", responses=errors(409))
def create_tenant(services: Served, body: TenantCreate) -> TenantObject:
    """A tenant has its own models, files, batches and keys, and sees no other's."""
    with services.database.session() as session:
        made = tenants.create_tenant(session, body.name, weight=body.weight, counts=body.counts)
        return TenantObject.model_validate(made)


@router.get("", summary="List tenants")
def list_tenants(services: Served) -> Listing[TenantObject]:
    """By name, the operator's own among them."""
    with services.database.session(read_only=True) as session:
        return Listing(data=[TenantObject.model_validate(row) for row in tenants.list_tenants(session)])


@router.patch("/{name}", summary="Change a tenant", responses=errors(404))
def change_tenant(services: Served, name: TenantName, body: TenantChange) -> TenantObject:
    """Its weight, and whether its lookups are counted. A worker takes a change with its next shard."""
    with services.database.session() as session:
        return TenantObject.model_validate(
            tenants.change_tenant(session, name, body.model_dump(include=body.model_fields_set))
        )


@own_router.get("", summary="Look at the caller's tenant")
def retrieve_own_tenant(services: Served, caller: Caller) -> TenantObject:
    """The tenant that the API key belongs to."""
    with services.database.session(read_only=True) as session:
        return TenantObject.model_validate(tenants.get_tenant(session, caller.tenant_name))


@own_router.patch("", summary="Choose whether lookups are counted")
def change_own_tenant(services: Served, caller: Caller, body: OwnTenantChange) -> TenantObject:
    """With `counts: none` no n-gram of the tenant's texts is counted, so none gets into a knowledge tree because of it.

    What was counted before stays until it fades. Null: as the operator's setting says.
    """
    with services.database.session() as session:
        return TenantObject.model_validate(tenants.change_tenant(session, caller.tenant_name, {"counts": body.counts}))


@router.delete("/{name}", summary="Delete a tenant", responses=errors(404))
def delete_tenant(
    services: Served,
    background: BackgroundTasks,
    name: TenantName,
    purge: Annotated[bool, Query(description="Rebuild all trees without it, and say what is left where.")] = False,
) -> TenantDeleted:
    """With its keys, models, private domains, files and batches, at once and for good.

    The next rebuild of a tree removes the tenant from n-gram counts, and what only it had asked for.
    """
    with services.database.session() as session:
        deleted = tenants.delete_tenant(session, name)
    left = []
    for path in deleted.paths:
        try:
            services.storage.delete(path)
        except (HmiError, OSError) as error:
            _log.warning("file_not_deleted", path=path, reason=type(error).__name__)
            left.append(path)
    report = request_purge(services, deleted, left) if purge else None
    for each in report.rebuilds if report else ():
        background.add_task(services.hint, TaskName.REBUILD_TREES, each.base)
    return TenantDeleted(id=name, object="hmi.tenant", purge=report)


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
