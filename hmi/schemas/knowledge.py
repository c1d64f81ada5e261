"""Domains and their deltas, base models, and texts to count."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from hmi.schemas.base import Name, RequestModel, ResponseModel, Timestamp


class DomainCreate(RequestModel):
    name: Annotated[Name, Field(examples=["reviews"])]
    parent: Annotated[str, Field(max_length=64, description="`general` is the root.")] = "general"


class DomainChange(RequestModel):
    parent: Annotated[str, Field(max_length=64, description="The new parent; the domain's descendants move with it.")]


class DomainObject(ResponseModel):
    object: Literal["hmi.domain"] = "hmi.domain"
    name: str
    parent: Annotated[str | None, Field(description="Null for `general` alone.")]
    created_at: Timestamp


class DeltaObject(ResponseModel):
    """A LoRA on a base model's lower layers, for one domain and its descendants."""

    object: Literal["hmi.delta"] = "hmi.delta"
    base: str
    domain: str
    artifact: Annotated[str, Field(description="Digest of the weights.")]
    summary: Annotated[dict[str, Any], Field(description="Rank, layers, linear layers and size.")]
    created_at: Timestamp


class BaseObject(ResponseModel):
    object: Literal["hmi.base"] = "hmi.base"
    id: str
    name: str
    artifact: Annotated[str, Field(description="Digest of the weights, the tokenizer and the spec.")]
    spec: Annotated[dict[str, Any], Field(description="Shapes; `k` lower layers are looked up.")]
    tree: Annotated[int | None, Field(description="Number of the published knowledge tree.")]
    created_at: Timestamp


class FrequenciesCreate(RequestModel):
    base: Annotated[str, Field(max_length=64)]
    domain: Annotated[str, Field(max_length=64)]
    texts: Annotated[
        list[Annotated[str, StringConstraints(min_length=1)]],
        Field(min_length=1, max_length=100_000, fail_fast=True, description="As requests would send them, one each."),
    ]


class FrequenciesCounted(ResponseModel):
    object: Literal["hmi.frequencies"] = "hmi.frequencies"
    base: str
    domain: str
    texts: int
    windows: Annotated[int, Field(description="Tokens counted, special tokens included.")]
    ngrams: Annotated[int, Field(description="Different n-grams among them.")]
