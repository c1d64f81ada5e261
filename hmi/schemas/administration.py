"""Tenants with their API keys and models, OpenAI's Model object, worker nodes and readiness."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hmi.schemas.base import Name, OptionalTimestamp, RequestModel, ResponseModel, Timestamp
from hmi.spec import MissPolicy


class ModelObject(ResponseModel):
    id: Annotated[str, Field(description="`<tenant>/<model>`: what a request's `model` names.")]
    object: Literal["model"] = "model"
    created: Annotated[Timestamp, Field(description="Unix seconds.")]
    owned_by: Annotated[str, Field(description="The tenant.")]


class TenantModelObject(ResponseModel):
    """A model with what its owner knows of it."""

    id: Annotated[str, Field(description="The same as `name`.")]
    object: Literal["hmi.model"] = "hmi.model"
    name: str
    tenant: str
    base: str
    domain: str
    miss_policy: MissPolicy
    artifact: Annotated[str | None, Field(description="Digest of the adapter; null is the base model alone.")]
    revision: Annotated[int, Field(description="Grows with every change of what is served under the name.")]
    summary: Annotated[dict[str, Any], Field(description="The adapter's kind, rank, labels and size.")]
    created_at: Timestamp


class TenantCreate(RequestModel):
    name: Annotated[Name, Field(examples=["acme"])]
    weight: Annotated[int, Field(ge=1, le=1_000_000, description="Its share of the devices while others wait.")] = 1


class TenantObject(ResponseModel):
    object: Literal["hmi.tenant"] = "hmi.tenant"
    name: str
    weight: int
    created_at: Timestamp


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


class Health(ResponseModel):
    status: Literal["ok"] = "ok"


class Readiness(ResponseModel):
    """Each check says `ok` or, in a few words, what is not."""

    status: Literal["ready", "not_ready"]
    checks: Annotated[dict[str, str], Field(examples=[{"database": "ok", "migrations": "ok"}])]


class NodeObject(ResponseModel):
    """A worker process."""

    object: Literal["hmi.node"] = "hmi.node"
    name: str
    device: str
    pid: int
    stats: Annotated[dict[str, Any], Field(description="The engine's figures: tiers, batches, trees.")]
    started_at: Timestamp
    seen_at: Timestamp
