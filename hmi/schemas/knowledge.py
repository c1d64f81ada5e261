"""Domains and their deltas, base models, and texts to count."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from hmi.schemas.base import Name, RequestModel, ResponseModel, Timestamp

AudienceName = Literal["public", "tenants", "private"]
TenantNames = Annotated[list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=10_000)]


class DomainCreate(RequestModel):
    name: Annotated[Name, Field(examples=["reviews"])]
    parent: Annotated[str, Field(max_length=64, description="`general` is the root.")] = "general"
    owner: Annotated[str | None, Field(max_length=64, description="A tenant. Default: the operator.")] = None
    audience: Annotated[
        AudienceName | None,
        Field(description="Who may use it: all, the owner and `tenants`, or the owner alone. Default: as the parent."),
    ] = None
    tenants: Annotated[TenantNames, Field(default_factory=list, description="With the audience `tenants`.")]


class DomainChange(RequestModel):
    parent: Annotated[str, Field(max_length=64, description="The new parent; the domain's descendants move with it.")]


class AudienceChange(RequestModel):
    audience: Literal["public", "tenants"]
    tenants: Annotated[
        TenantNames,
        Field(default_factory=list, description="With the audience `tenants`; the owner is always one."),
    ]


class DomainObject(ResponseModel):
    object: Literal["hmi.domain"] = "hmi.domain"
    name: str
    parent: Annotated[str | None, Field(description="Null for `general` alone.")]
    audience: AudienceName
    owner: Annotated[str | None, Field(description="A tenant, shown to itself and to admin keys.")]
    tenants: Annotated[
        list[str] | None, Field(description="With the audience `tenants`, shown to the owner and to admin keys.")
    ]
    created_at: Timestamp


class DeltaObject(ResponseModel):
    """A LoRA on a base model's lower layers, for one domain and its descendants."""

    object: Literal["hmi.delta"] = "hmi.delta"
    base: str
    domain: str
    artifact: Annotated[str, Field(description="Digest of the weights.")]
    summary: Annotated[dict[str, Any], Field(description="Rank, layers, linear layers and size.")]
    owner: Annotated[
        str | None, Field(description="The tenant on whose text it was trained, shown to itself and to admin keys.")
    ]
    is_published: Annotated[bool, Field(description="Whether the owner lets others use it.")]
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


class FrequenciesPublish(RequestModel):
    base: Name
    domain: Name


class FrequenciesPublished(ResponseModel):
    object: Literal["hmi.frequencies"] = "hmi.frequencies"
    base: str
    domain: str
    ngrams: Annotated[int, Field(description="N-grams that are public now, and of which it was not known who asked.")]


class FrequenciesCounted(ResponseModel):
    object: Literal["hmi.frequencies"] = "hmi.frequencies"
    base: str
    domain: str
    texts: int
    windows: Annotated[int, Field(description="Tokens counted, special tokens included.")]
    ngrams: Annotated[int, Field(description="Different n-grams among them.")]
