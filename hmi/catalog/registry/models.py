"""Tenants' models: a name, a base model, a domain and the served adapter revision."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, Select, and_, case, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml, insert_or, now
from hmi.catalog.registry.bases import get_base
from hmi.catalog.registry.deltas import nearest_deltas
from hmi.catalog.registry.domains import get_domain, lock_domains
from hmi.catalog.registry.names import check_json, check_model_name, split_model_name
from hmi.catalog.registry.tenants import Principal
from hmi.catalog.schema import AdapterRevision, Audience, Domain, RegisteredBase, Tenant, TenantModel, new_id
from hmi.errors import NotFound
from hmi.spec import CountPolicy, MissPolicy

_NAMES_PER_QUERY = 400  # two bound values each; SQLite may be built with room for 999


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """What a request's `model` currently refers to."""

    model_id: str
    name: str  # with the tenant's: `acme/sentiment`
    tenant_id: str
    tenant: str
    base_id: str
    base_name: str
    base_artifact: str
    domain: str
    artifact: str | None  # digest of the adapter; None is the base model alone
    delta: str | None  # digest of the nearest delta among the domain and its ancestors; None if there is none
    miss_policy: MissPolicy
    revision: int  # 1, 2, ...: grows with every change of the served content
    summary: Mapping[str, Any] = field(hash=False)  # kind, rank, labels and so on, for listings
    created_at: float  # when the name was first registered
    tenant_bit: int = 0  # among those who asked for an n-gram
    scope: str = ""  # id of the domain if not all tenants may use it, see `hmi.items.ModelRef`
    counts: CountPolicy | None = None  # whether the tenant's lookups are counted; None: as the settings say


def register_model(
    session: Session,
    tenant_id: str,
    name: str,
    *,
    base: str,
    domain: str,
    miss_policy: MissPolicy,
    artifact: str | None,
    summary: Mapping[str, Any],
) -> RegisteredModel:
    """Serve `artifact` under `name`, which is without the tenant's.

    An existing name gets a new revision; the same content again changes nothing. Raises `NotFound` (tenant, base,
    domain: one that the tenant may not use is unknown to it), `InvalidInput`.
    """
    check_model_name(name)
    check_json(dict(summary), param="summary")
    if session.get(Tenant, tenant_id) is None:
        raise NotFound(f"there is no tenant {tenant_id}", param="tenant")
    lock_domains(session, shared=True)
    place = get_domain(session, domain, tenant_id=tenant_id)
    content = {"base_id": get_base(session, base).id, "domain_id": place.id}
    content["miss_policy"] = miss_policy
    mine = and_(TenantModel.tenant_id == tenant_id, TenantModel.name == name)
    new = {"id": new_id("model_"), "tenant_id": tenant_id, "name": name, "revision": 0, "created_at": now()}
    execute_dml(session, insert_or(session, TenantModel).values(**new, **content).on_conflict_do_nothing())
    # Serialises concurrent uploads of one name.
    model = session.scalars(select(TenantModel).where(mine).with_for_update()).one()
    served = session.scalars(
        select(AdapterRevision.artifact).where(
            AdapterRevision.model_id == model.id, AdapterRevision.revision == model.revision
        )
    ).one_or_none()
    same = served == artifact and all(getattr(model, key) == value for key, value in content.items())
    if model.revision == 0 or not same:
        number = model.revision + 1
        session.add(
            AdapterRevision(
                id=new_id("revision_"),
                model_id=model.id,
                revision=number,
                artifact=artifact,
                summary=dict(summary),
                created_at=now(),
            )
        )
        session.flush()
        execute_dml(session, update(TenantModel).where(TenantModel.id == model.id).values(revision=number, **content))
    (view,) = _with_deltas(session, [session.execute(_views().where(TenantModel.id == model.id)).one()])
    return view


def resolve(session: Session, names: Collection[str], principal: Principal) -> dict[str, RegisteredModel]:
    """Return the models of these full names that the principal may use; unknown and foreign names are both absent."""
    pairs = sorted({pair for name in names if (pair := split_model_name(name)) is not None})
    rows: list[_Row] = []
    for start in range(0, len(pairs), _NAMES_PER_QUERY):
        some = pairs[start : start + _NAMES_PER_QUERY]
        statement = _scoped(principal).where(tuple_(Tenant.name, TenantModel.name).in_(some))
        rows += session.execute(statement)
    return {view.name: view for view in _with_deltas(session, rows)}


def list_models(session: Session, principal: Principal, *, tenant: str | None = None) -> list[RegisteredModel]:
    """Return the models that the principal may use, by name; `tenant` restricts an admin's list to one tenant."""
    statement = _scoped(principal).order_by(Tenant.name, TenantModel.name)
    if tenant is not None:
        statement = statement.where(Tenant.name == tenant)
    return _with_deltas(session, session.execute(statement).all())


def get_model(session: Session, principal: Principal, name: str) -> RegisteredModel:
    """Raises `NotFound`, the same for an unknown and for another tenant's model."""
    view = resolve(session, [name], principal).get(name)
    if view is None:
        raise NotFound(f"there is no model {name[:200]!r}", code="model_not_found", param="model")
    return view


def approximate_shares(session: Session, base_id: str) -> dict[str, float]:
    """Return the share of models with the miss policy `backoff`, by the name of each domain with models on the base."""
    approximate = func.sum(case((TenantModel.miss_policy == MissPolicy.BACKOFF, 1.0), else_=0.0))
    statement = (
        select(Domain.name, approximate / func.count())
        .join(Domain, Domain.id == TenantModel.domain_id)
        .where(TenantModel.base_id == base_id)
        .group_by(Domain.name)
    )
    return {name: float(share) for name, share in session.execute(statement)}


def delete_model(session: Session, principal: Principal, name: str) -> RegisteredModel:
    """Delete a model and its revisions; queued requests will not find it. Raises `NotFound`."""
    view = get_model(session, principal, name)
    execute_dml(
        session, delete(TenantModel).where(TenantModel.tenant_id == view.tenant_id, TenantModel.id == view.model_id)
    )
    return view


_Row = Row[TenantModel, AdapterRevision, Tenant, RegisteredBase, Domain]
_Views = Select[TenantModel, AdapterRevision, Tenant, RegisteredBase, Domain]


def _views() -> _Views:
    served = and_(AdapterRevision.model_id == TenantModel.id, AdapterRevision.revision == TenantModel.revision)
    return (
        select(TenantModel, AdapterRevision, Tenant, RegisteredBase, Domain)
        .join(AdapterRevision, served)
        .join(Tenant, Tenant.id == TenantModel.tenant_id)
        .join(RegisteredBase, RegisteredBase.id == TenantModel.base_id)
        .join(Domain, Domain.id == TenantModel.domain_id)
    )


def _scoped(principal: Principal) -> _Views:
    if principal.is_admin:
        return _views()
    return _views().where(TenantModel.tenant_id == principal.tenant_id)


def _with_deltas(session: Session, rows: Sequence[_Row]) -> list[RegisteredModel]:
    deltas = nearest_deltas(session, {(row[3].id, row[4].name) for row in rows})
    return [_view(row, deltas.get((row[3].id, row[4].name))) for row in rows]


def _view(row: _Row, delta: str | None) -> RegisteredModel:
    model, revision, tenant, base, domain = row
    return RegisteredModel(
        model_id=model.id,
        name=f"{tenant.name}/{model.name}",
        tenant_id=model.tenant_id,
        tenant=tenant.name,
        base_id=base.id,
        base_name=base.name,
        base_artifact=base.artifact,
        domain=domain.name,
        artifact=revision.artifact,
        delta=delta,
        miss_policy=model.miss_policy,
        revision=revision.revision,
        summary=revision.summary,
        created_at=model.created_at,
        tenant_bit=tenant.bit,
        scope="" if domain.audience is Audience.PUBLIC else domain.id,
        counts=tenant.counts,
    )
