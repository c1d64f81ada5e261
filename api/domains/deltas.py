"""/v1/hmi/deltas: LoRAs on a base model's lower layers, for single domains."""

from __future__ import annotations

from typing import Annotated

from fastapi import File, Form, Path, Query, UploadFile

from api.routing import Caller, Served, errors, tenant_router
from api.uploads import keep_adapter, saved_folder
from hmi.adapters.formats import read_delta
from hmi.catalog import DeltaView, Principal, bases, deltas
from hmi.errors import NotFound
from hmi.schemas import Deleted, DeltaObject, Listing

router = tenant_router("/v1/hmi/deltas", "Administration: domain deltas")

_Base = Annotated[str, Path(description="Name of a base model.", examples=["minilm-k3"], max_length=64)]
_Domain = Annotated[str, Path(description="Name of a domain.", examples=["movies"], max_length=64)]


@router.post("", summary="Set a domain's delta", responses=errors(403, 404, 409, 413, 507))
def set_delta(
    services: Served,
    caller: Caller,
    base: Annotated[str, Form(max_length=64, description="Name of the base model.")],
    domain: Annotated[str, Form(max_length=64, description="It counts for all that is under the domain, too.")],
    files: Annotated[
        list[UploadFile], File(description="HMI's own `adapter.safetensors`, or the files of a PEFT LoRA's folder.")
    ],
    owner: Annotated[
        str | None, Form(max_length=64, description="The tenant on whose text it was trained. Default: the caller.")
    ] = None,
) -> DeltaObject:
    """A LoRA without a head, on lower layers alone; it takes the place of the one that the domain had.

    With a tenant's key: on a private domain of its own. What was trained on one tenant's text stays on that tenant's
    private domains until it publishes it.

    It is read whole and refused, with the reason, where anything in it would not be applied. Stored rows of the
    function before are not looked up any more: rows are computed on a miss until the next rebuild of the tree.
    """
    if owner is not None and not caller.is_admin and owner != caller.tenant_name:
        raise NotFound(f"there is no tenant {owner[:80]!r}", param="owner")  # whether it exists or not
    with services.database.session(read_only=True) as session:
        spec = bases.spec_of(bases.get_base(session, base))
        deltas.require_delta_domain(session, caller, domain)
    with saved_folder(files, services.settings.max_adapter_bytes) as folder:
        delta = read_delta(folder, spec)
    artifact = keep_adapter(services.artifacts, delta)
    with services.database.session() as session:
        row = bases.get_base(session, base)
        made = deltas.set_delta(session, row.id, domain, artifact, delta.summary(), owner=owner, principal=caller)
    return _view(row.name, made, caller)


@router.get("", summary="List deltas", responses=errors(404))
def list_deltas(
    services: Served,
    caller: Caller,
    base: Annotated[str | None, Query(description="Only this base model's.", max_length=64)] = None,
) -> Listing[DeltaObject]:
    """By base model and domain; with a tenant's key those of its private domains."""
    with services.database.session(read_only=True) as session:
        rows = bases.list_bases(session) if base is None else [bases.get_base(session, base)]
        found = [(row.name, each) for row in rows for each in deltas.list_deltas(session, row.id, caller)]
    return Listing(data=[_view(name, each, caller) for name, each in found])


@router.get("/{base}/{domain}", summary="Look at a delta", responses=errors(403, 404))
def retrieve_delta(services: Served, caller: Caller, base: _Base, domain: _Domain) -> DeltaObject:
    """The domain's own, not one that it has from an ancestor."""
    with services.database.session(read_only=True) as session:
        row = bases.get_base(session, base)
        deltas.require_delta_domain(session, caller, domain)
        return _view(row.name, deltas.get_delta(session, row.id, domain), caller)


@router.post("/{base}/{domain}/publish", summary="Publish a delta", responses=errors(403, 404))
def publish_delta(services: Served, caller: Caller, base: _Base, domain: _Domain) -> DeltaObject:
    """Let the operator set your delta on domains of others, for ever. Only the tenant that owns it may."""
    with services.database.session() as session:
        row = bases.get_base(session, base)
        return _view(row.name, deltas.publish_delta(session, caller, row.id, domain), caller)


@router.delete("/{base}/{domain}", summary="Remove a delta", responses=errors(403, 404))
def remove_delta(services: Served, caller: Caller, base: _Base, domain: _Domain) -> Deleted:
    """The domain goes back to what its ancestors run with; its stored rows are computed anew by the next rebuild."""
    with services.database.session() as session:
        row = bases.get_base(session, base)
        deltas.require_delta_domain(session, caller, domain)
        removed = deltas.remove_delta(session, row.id, domain)
    return Deleted(id=f"{row.name}/{removed.domain}", object="hmi.delta")


def _view(base: str, delta: DeltaView, caller: Principal) -> DeltaObject:
    return DeltaObject(
        base=base,
        domain=delta.domain,
        artifact=delta.artifact,
        summary=dict(delta.summary),
        owner=delta.owner if caller.is_admin or delta.owner == caller.tenant_name else None,
        is_published=delta.is_published,
        created_at=int(delta.created_at),
    )
