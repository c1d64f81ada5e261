"""Tenants with their API keys and models, OpenAI's Model object, worker nodes and readiness."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hmi.schemas.base import ResponseModel, Timestamp
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
