"""Domains, their deltas, base models, and the counting of text."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints

from api.schemas.common import RequestBody
from api.schemas.tenants import NamePattern
from hmi.catalog import DeltaView, DomainView
from hmi.catalog import RegisteredBase as BaseRow

__all__ = [
    "BaseObject",
    "DeltaObject",
    "DomainChange",
    "DomainCreate",
    "DomainObject",
    "FrequenciesCounted",
    "FrequenciesCreate",
]


class DomainCreate(RequestBody):
    name: Annotated[str, Field(pattern=NamePattern, examples=["reviews"])]
    parent: Annotated[str, Field(max_length=64, description="`general` is the root.")] = "general"


class DomainChange(RequestBody):
    parent: Annotated[str, Field(max_length=64, description="Its new parent; all that is under it moves with it.")]


class DomainObject(BaseModel):
    object: Literal["hmi.domain"] = "hmi.domain"
    name: str
    parent: Annotated[str | None, Field(description="Null for `general` alone.")]
    created_at: int

    @classmethod
    def from_view(cls, domain: DomainView) -> Self:
        return cls(name=domain.name, parent=domain.parent, created_at=int(domain.created_at))


class DeltaObject(BaseModel):
    """A base model's lower layers as one domain, and all that is under it, wants them."""

    object: Literal["hmi.delta"] = "hmi.delta"
    base: str
    domain: str
    artifact: Annotated[str, Field(description="Digest of the weights.")]
    summary: Annotated[dict[str, Any], Field(description="Rank, layers, linear layers and size.")]
    created_at: int

    @classmethod
    def from_view(cls, base: str, delta: DeltaView) -> Self:
        return cls(
            base=base,
            domain=delta.domain,
            artifact=delta.artifact,
            summary=dict(delta.summary),
            created_at=int(delta.created_at),
        )


class BaseObject(BaseModel):
    object: Literal["hmi.base"] = "hmi.base"
    id: str
    name: str
    artifact: Annotated[str, Field(description="Digest of the weights, the tokenizer and the spec.")]
    spec: Annotated[dict[str, Any], Field(description="Shapes; `k` lower layers are looked up.")]
    tree: Annotated[int | None, Field(description="Number of the published knowledge tree.")]
    created_at: int

    @classmethod
    def from_row(cls, base: BaseRow) -> Self:
        return cls(
            id=base.id,
            name=base.name,
            artifact=base.artifact,
            spec=base.spec,
            tree=base.tree_number,
            created_at=int(base.created_at),
        )


class FrequenciesCreate(RequestBody):
    base: Annotated[str, Field(max_length=64)]
    domain: Annotated[str, Field(max_length=64)]
    texts: Annotated[
        list[Annotated[str, StringConstraints(min_length=1)]],
        Field(min_length=1, max_length=100_000, description="As requests would send them, one each."),
    ]


class FrequenciesCounted(BaseModel):
    object: Literal["hmi.frequencies"] = "hmi.frequencies"
    base: str
    domain: str
    texts: int
    windows: Annotated[int, Field(description="Tokens counted, special tokens included.")]
    ngrams: Annotated[int, Field(description="Different n-grams among them.")]
