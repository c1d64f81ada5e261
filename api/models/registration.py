"""/v1/hmi/models: registering tenants' models."""

from __future__ import annotations

from typing import Annotated

from fastapi import File, Form, Path, Query, UploadFile
from pydantic import StringConstraints, TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from api.routing import Caller, Served, errors, tenant_router
from api.uploads import keep_adapter, saved_folder
from hmi.adapters.formats import read_adapter
from hmi.catalog import Principal, RegisteredModel, bases, domains, models, tenants
from hmi.errors import InvalidInput, NotFound
from hmi.schemas import Deleted, Listing, TenantModelObject
from hmi.spec import MissPolicy

router = tenant_router("/v1/hmi/models", "Administration: tenants' models")

FullName = Annotated[str, Path(examples=["acme/sentiment"], max_length=256)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]*$")]

_LABELS = TypeAdapter(list[Label])


@router.post("", summary="Register a model", responses=errors(404, 413, 507))
def register_model(
    services: Served,
    caller: Caller,
    name: Annotated[
        str, Form(max_length=128, description="`acme/sentiment`; with a tenant's key `sentiment` is enough.")
    ],
    base: Annotated[str, Form(max_length=64, description="Name of the base model.")],
    domain: Annotated[str, Form(max_length=64, description="Where its n-grams are looked up first.")],
    miss_policy: Annotated[MissPolicy, Form(description="For n-grams without a row.")] = MissPolicy.EXACT,
    labels: Annotated[
        str | None, Form(description="JSON list of the head's label names, in order.", examples=['["bad", "good"]'])
    ] = None,
    files: Annotated[
        list[UploadFile], File(description="An adapter folder's files: HMI's own, PEFT's or AdapterHub's.")
    ] = [],  # noqa: B006 - FastAPI copies defaults
) -> TenantModelObject:
    """Serve an adapter on a base model under the tenant's name; without files the base model alone.

    A domain that the tenant may not use is answered like one that does not exist.

    The adapter is read whole and refused, with the reason, where anything in it would not be applied. An
    existing name gets a new revision; the same content again changes nothing.
    """
    with services.database.session(read_only=True) as session:
        tenant_id, short_name = _owner(session, caller, name)
        spec = bases.spec_of(bases.get_base(session, base))
        domains.get_domain(session, domain, tenant_id=tenant_id)
    names = None if labels is None else _parse_labels(labels)
    adapter = None
    if files:
        with saved_folder(files, services.settings.max_adapter_bytes) as folder:
            adapter = read_adapter(folder, spec, names)
    elif names is not None:
        raise InvalidInput("labels name the outputs of an adapter's head, and no files were sent", param="labels")
    artifact = None if adapter is None else keep_adapter(services.artifacts, adapter)
    with services.database.session() as session:
        model = models.register_model(
            session,
            tenant_id,
            short_name,
            base=base,
            domain=domain,
            miss_policy=miss_policy,
            artifact=artifact,
            summary={} if adapter is None else adapter.summary(),
        )
    return _view(model)


@router.get("", summary="List models")
def list_models(
    services: Served, caller: Caller, tenant: Annotated[str | None, Query(max_length=64)] = None
) -> Listing[TenantModelObject]:
    """Your models with their adapters; with an admin key those of all tenants, or of one."""
    with services.database.session(read_only=True) as session:
        found = models.list_models(session, caller, tenant=tenant)
    return Listing(data=[_view(model) for model in found])


@router.get("/{name:path}", summary="Look at a model", responses=errors(404))
def retrieve_model(services: Served, caller: Caller, name: FullName) -> TenantModelObject:
    """One model by its full name."""
    with services.database.session(read_only=True) as session:
        return _view(models.get_model(session, caller, name))


@router.delete("/{name:path}", summary="Delete a model", responses=errors(404))
def delete_model(services: Served, caller: Caller, name: FullName) -> Deleted:
    """Requests that name it and have not run yet find no model."""
    with services.database.session() as session:
        model = models.delete_model(session, caller, name)
    return Deleted(id=model.name, object="hmi.model")


def _owner(session: Session, caller: Principal, name: str) -> tuple[str, str]:
    """The tenant's id and the model's own name."""
    tenant, slash, short_name = name.rpartition("/")
    if not slash and caller.is_admin:
        raise InvalidInput("with an admin key the name needs its tenant, as in acme/sentiment", param="name")
    if not slash or tenant == caller.tenant_name:
        return caller.tenant_id, short_name
    if not caller.is_admin:
        raise NotFound(f"there is no tenant {tenant[:80]!r}", param="name")  # the same answer whether it exists or not
    return tenants.get_tenant(session, tenant).id, short_name


def _parse_labels(labels: str) -> list[str]:
    try:
        return _LABELS.validate_json(labels)
    except ValidationError:
        raise InvalidInput("labels must be a JSON list of names", param="labels") from None


def _view(model: RegisteredModel) -> TenantModelObject:
    return TenantModelObject(
        id=model.name,
        name=model.name,
        tenant=model.tenant,
        base=model.base_name,
        domain=model.domain,
        miss_policy=model.miss_policy,
        artifact=model.artifact,
        revision=model.revision,
        summary=dict(model.summary),
        created_at=int(model.created_at),
    )
