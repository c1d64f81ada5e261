"""OpenAI's Model object, and the same model with what its owner knows of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from hmi.catalog import ServedModel
from hmi.spec import MissPolicy

__all__ = ["ModelObject", "TenantModelObject"]


class ModelObject(BaseModel):
    id: Annotated[str, Field(description="`<tenant>/<model>`: what a request's `model` names.")]
    object: Literal["model"] = "model"
    created: Annotated[int, Field(description="Unix seconds.")]
    owned_by: Annotated[str, Field(description="The tenant.")]

    @classmethod
    def from_served(cls, model: ServedModel) -> Self:
        return cls(id=model.name, created=int(model.created_at), owned_by=model.tenant)


class TenantModelObject(BaseModel):
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
    created_at: int

    @classmethod
    def from_served(cls, model: ServedModel) -> Self:
        return cls(
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
