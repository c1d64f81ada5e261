"""Tenants and their API keys."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from api.schemas.common import RequestBody
from hmi.catalog import ApiKey, Role, Tenant

__all__ = ["KeyCreate", "KeyObject", "NewKeyObject", "TenantCreate", "TenantObject"]

NamePattern = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class TenantCreate(RequestBody):
    name: Annotated[str, Field(pattern=NamePattern, examples=["acme"])]
    weight: Annotated[int, Field(ge=1, le=1_000_000, description="Its share where several tenants' work waits.")] = 1


class TenantObject(BaseModel):
    object: Literal["hmi.tenant"] = "hmi.tenant"
    name: str
    weight: int
    created_at: int

    @classmethod
    def from_row(cls, tenant: Tenant) -> Self:
        return cls(name=tenant.name, weight=tenant.weight, created_at=int(tenant.created_at))


class KeyCreate(RequestBody):
    label: Annotated[str, Field(max_length=64, description="To tell keys apart in the list.")] = ""
    expires_in_seconds: Annotated[int | None, Field(ge=1, le=10 * 366 * 24 * 3600)] = None


class KeyObject(BaseModel):
    """What is known of a key after it was created; the key itself is not kept."""

    object: Literal["hmi.api_key"] = "hmi.api_key"
    id: Annotated[str, Field(description="The public part of the key.")]
    role: Role
    label: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None

    @classmethod
    def from_row(cls, key: ApiKey) -> Self:
        return cls(**_fields(key))


class NewKeyObject(KeyObject):
    key: Annotated[str, Field(description="The whole key, shown this once.")]

    @classmethod
    def with_text(cls, key: ApiKey, text: str) -> Self:
        return cls(**_fields(key), key=text)


def _fields(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "role": key.role,
        "label": key.label,
        "created_at": int(key.created_at),
        "expires_at": None if key.expires_at is None else int(key.expires_at),
        "revoked_at": None if key.revoked_at is None else int(key.revoked_at),
    }
