"""Tenants, their API keys, authentication.

Admin keys belong to the operator tenant alone, so that a tenant's id determines what its jobs may see.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, or_, select, union_all, update
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml, insert_or, now
from hmi.catalog.registry.keys import mint_key, parse_key
from hmi.catalog.registry.names import check_name, check_text
from hmi.catalog.schema import (
    OPERATOR,
    AdapterRevision,
    ApiKey,
    Audience,
    Domain,
    DomainDelta,
    File,
    ForgottenTenant,
    Role,
    Shard,
    Tenant,
    TenantModel,
    new_id,
)
from hmi.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from hmi.spec import CountPolicy
from hmi.tenant_bits import TENANT_BITS

_MAX_WEIGHT = 1_000_000
_UNKNOWN_KEY = "the API key is unknown, expired or revoked"


@dataclass(frozen=True, slots=True)
class Principal:
    """The tenant that a request or job belongs to. `key_id` is empty for a job."""

    tenant_id: str
    tenant_name: str
    role: Role
    key_id: str

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN


@dataclass(frozen=True, slots=True)
class DeletedTenant:
    """`paths`: files in the storage, for the caller to delete after the commit."""

    tenant_id: str
    bit: int  # that it had in bitmaps of n-gram counts
    paths: tuple[str, ...]
    adapters: tuple[str, ...]  # digests that no model names any more


def create_tenant(session: Session, name: str, *, weight: int = 1, counts: CountPolicy | None = None) -> Tenant:
    """Raises `Conflict` if the name is taken, `InvalidInput`."""
    check_name(name)
    _check_weight(weight)
    values = {"id": new_id("tenant_"), "name": name, "weight": weight, "bit": _free_bit(session), "counts": counts}
    new = insert_or(session, Tenant).values(**values, created_at=now())
    if not execute_dml(session, new.on_conflict_do_nothing()):
        raise Conflict(f"there is a tenant {name} already", param="name")
    return get_tenant(session, name)


def change_tenant(session: Session, name: str, changes: Mapping[str, Any]) -> Tenant:
    """Set the `weight` and the `counts` that `changes` names; return the tenant. Raises `NotFound`, `InvalidInput`."""
    tenant = get_tenant(session, name)
    values = {key: changes[key] for key in ("weight", "counts") if key in changes}
    if "weight" in values:
        _check_weight(values["weight"])
    if values:
        execute_dml(session, update(Tenant).where(Tenant.id == tenant.id).values(**values))
    return get_tenant(session, name)


def get_tenant(session: Session, name: str, *, param: str = "tenant") -> Tenant:
    """Raises `NotFound`."""
    tenant = session.scalars(select(Tenant).where(Tenant.name == name)).one_or_none()
    if tenant is None:
        raise NotFound(f"there is no tenant {name[:80]!r}", param=param)
    return tenant


def lock_tenant(session: Session, tenant_id: str) -> None:
    """Serialise the submissions of a tenant until the commit, so that quotas hold. Raises `NotFound`."""
    locked = select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True)
    if session.scalars(locked).first() is None:
        raise NotFound(f"there is no tenant {tenant_id}")


def list_tenants(session: Session) -> list[Tenant]:
    """All tenants by name, the operator among them."""
    return list(session.scalars(select(Tenant).order_by(Tenant.name)))


def delete_tenant(session: Session, name: str) -> DeletedTenant:
    """Delete a tenant with its keys, models, private domains, files, batches and jobs, even running ones.

    Other domains that it owned become the operator's. The next build of a tree removes it from n-gram counts
    (`trees.forgetting`).

    A worker that still runs one of its shards cannot finish it. Raises `NotFound`, `Forbidden` for the operator.
    """
    tenant = get_tenant(session, name)
    if name == OPERATOR:
        raise Forbidden("the operator's own tenant cannot be deleted")
    paths = session.scalars(
        union_all(
            *(
                select(column).where(column.class_.tenant_id == tenant.id, column.is_not(None))
                for column in (File.path, Shard.output_path, Shard.error_path)
            )
        )
    )
    stored = tuple(sorted({path for path in paths if path is not None}))
    own = select(AdapterRevision.artifact).join(TenantModel, TenantModel.id == AdapterRevision.model_id)
    adapters = set(session.scalars(own.where(TenantModel.tenant_id == tenant.id)))
    session.add(ForgottenTenant(tenant_id=tenant.id, bit=tenant.bit, created_at=now()))
    session.flush()
    execute_dml(session, delete(Tenant).where(Tenant.id == tenant.id))
    # Models of the tenant are gone, so nothing refers to its private domains. Their counts go with the next build.
    private = (Domain.owner_id == tenant.id, Domain.audience == Audience.PRIVATE)
    execute_dml(session, delete(Domain).where(*private))
    for owned in (Domain, DomainDelta):
        execute_dml(session, update(owned).where(owned.owner_id == tenant.id).values(owner_id=None))
    named = set(session.scalars(select(AdapterRevision.artifact).where(AdapterRevision.artifact.in_(adapters))))
    unnamed = sorted(each for each in adapters - named if each is not None)
    return DeletedTenant(tenant.id, tenant.bit, stored, tuple(unnamed))


def principal_of(session: Session, tenant_id: str) -> Principal:
    """Return the principal of a tenant's jobs. Raises `NotFound`."""
    name = session.scalars(select(Tenant.name).where(Tenant.id == tenant_id)).one_or_none()
    if name is None:
        raise NotFound(f"there is no tenant {tenant_id}")
    return Principal(tenant_id, name, _role_in(name), key_id="")


def create_key(
    session: Session, tenant_id: str, role: Role, *, label: str = "", expires_at: float | None = None
) -> tuple[ApiKey, str]:
    """Create a key; return it and its text, which is not stored.

    Raises `NotFound`; `InvalidInput` for an admin key of another tenant than the operator, or the reverse.
    """
    tenant = session.get(Tenant, tenant_id)
    if tenant is None:
        raise NotFound(f"there is no tenant {tenant_id}", param="tenant")
    if role is not _role_in(tenant.name):
        raise InvalidInput(f"keys of {tenant.name} have the role {_role_in(tenant.name)}", param="role")
    text = mint_key()
    key = ApiKey(
        id=text.id,
        tenant_id=tenant_id,
        role=role,
        label=check_text(label, param="label", max_length=64),
        secret_sha256=text.secret_sha256,
        created_at=now(),
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, text.plaintext


def register_admin_key(session: Session, plaintext: str) -> ApiKey:
    """Store a given admin key, for unattended installations; a second call changes nothing.

    A revoked key stays revoked. Raises `InvalidInput` for malformed text (`keys.mint_key` makes a key), `Conflict` if
    its id belongs to another key.
    """
    text = parse_key(plaintext)
    operator = get_tenant(session, OPERATOR)
    values = {
        "id": text.id,
        "tenant_id": operator.id,
        "role": Role.ADMIN,
        "label": "adopted",
        "secret_sha256": text.secret_sha256,
        "created_at": now(),
    }
    execute_dml(session, insert_or(session, ApiKey).values(**values).on_conflict_do_nothing())
    key = session.get_one(ApiKey, text.id)
    if key.secret_sha256 != text.secret_sha256 or key.role is not Role.ADMIN:
        raise Conflict(f"the key id {text.id} belongs to another key")
    return key


def authenticate(session: Session, plaintext: str) -> Principal:
    """Return the key's principal. Raises `Unauthenticated`, with one message for every reason."""
    try:
        text = parse_key(plaintext)
    except InvalidInput:
        raise Unauthenticated(_UNKNOWN_KEY) from None
    row = session.execute(
        select(ApiKey.secret_sha256, ApiKey.role, Tenant.id, Tenant.name)
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .where(
            ApiKey.id == text.id,
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now()),
        )
    ).one_or_none()
    if row is None or not hmac.compare_digest(row[0], text.secret_sha256):
        raise Unauthenticated(_UNKNOWN_KEY)
    return Principal(row[2], row[3], row[1], text.id)


def revoke_key(session: Session, tenant_id: str, key_id: str) -> None:
    """Refuse the key from now on; a second call changes nothing. Raises `NotFound`."""
    mine = (ApiKey.tenant_id == tenant_id, ApiKey.id == key_id)
    execute_dml(session, update(ApiKey).where(*mine, ApiKey.revoked_at.is_(None)).values(revoked_at=now()))
    if session.scalars(select(ApiKey.id).where(*mine)).one_or_none() is None:
        raise NotFound(f"there is no key {key_id[:80]!r}")


def list_keys(session: Session, tenant_id: str) -> list[ApiKey]:
    """All keys of a tenant, including revoked ones, oldest first."""
    return list(
        session.scalars(select(ApiKey).where(ApiKey.tenant_id == tenant_id).order_by(ApiKey.created_at, ApiKey.id))
    )


def _check_weight(weight: int) -> None:
    if not 1 <= weight <= _MAX_WEIGHT:
        raise InvalidInput(f"weight must be in 1..{_MAX_WEIGHT}, not {weight}", param="weight")


def _free_bit(session: Session) -> int:
    """Return the bit that fewest tenants have. Two concurrent calls may return the same one, which is allowed."""
    used = Counter(session.scalars(select(Tenant.bit)))
    used.update(session.scalars(select(ForgottenTenant.bit)))
    return min(range(TENANT_BITS), key=lambda bit: (used[bit], bit))


def _role_in(tenant_name: str) -> Role:
    return Role.ADMIN if tenant_name == OPERATOR else Role.TENANT
