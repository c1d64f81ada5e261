"""Tenants and their API keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hmi.schemas.base import Deleted, Name, OptionalTimestamp, RequestModel, ResponseModel, Timestamp
from hmi.schemas.trees import RebuildRequested
from hmi.spec import CountPolicy

_Weight = Annotated[int, Field(ge=1, le=1_000_000, description="Its share of the devices while others wait.")]
_Counts = Annotated[
    CountPolicy | None,
    Field(
        strict=False,
        description="Are its lookups counted for knowledge trees? Null: as `HMI_TENANT_COUNTS` says.",
    ),
]


class TenantCreate(RequestModel):
    name: Annotated[Name, Field(examples=["acme"])]
    weight: _Weight = 1
    counts: _Counts = None


class TenantChange(RequestModel):
    """Fields that are not sent stay as they are."""

    weight: _Weight = 1
    counts: _Counts = None


class OwnTenantChange(RequestModel):
    """What a tenant may change itself."""

    counts: _Counts


class TenantObject(ResponseModel):
    object: Literal["hmi.tenant"] = "hmi.tenant"
    name: str
    weight: int
    counts: CountPolicy | None
    created_at: Timestamp


class KeptVersion(ResponseModel):
    """A version of a tree whose tables were built while the tenant was there."""

    base: str
    number: int
    served: bool


class TenantPurge(ResponseModel):
    """What is left of a deleted tenant, and until when."""

    rebuilds: Annotated[list[RebuildRequested], Field(description="Trees that are rebuilt without it.")]
    ngrams: Annotated[int, Field(description="Counts that the next rebuild changes or deletes.")]
    versions: Annotated[list[KeptVersion], Field(description="Deleted when two newer versions are published.")]
    files_left: Annotated[list[str], Field(description="Paths in the storage that could not be deleted.")]
    adapters_left: Annotated[list[str], Field(description="Digests of artifacts that no model names any more.")]
    notes: Annotated[list[str], Field(description="What this service does not reach.")]


class TenantDeleted(Deleted):
    purge: TenantPurge | None = None


class KeyCreate(RequestModel):
    label: Annotated[str, Field(max_length=64, description="Shown in the list of keys.")] = ""
    expires_in_seconds: Annotated[int | None, Field(ge=1, le=10 * 366 * 24 * 3600)] = None


class KeyObject(ResponseModel):
    """A key that was created before; the secret itself is not kept."""

    object: Literal["hmi.api_key"] = "hmi.api_key"
    id: Annotated[str, Field(description="The public part of the key.")]
    role: Literal["admin", "tenant"]
    label: str
    created_at: Timestamp
    expires_at: OptionalTimestamp
    revoked_at: OptionalTimestamp


class NewKeyObject(KeyObject):
    key: Annotated[str, Field(description="The whole key, shown this once.")]
