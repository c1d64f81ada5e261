"""Domains, base models and the knowledge trees between them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints

from api.schemas.common import RequestBody
from api.schemas.tenants import NamePattern
from hmi.catalog.domains import DomainView
from hmi.catalog.tables import BaseModel as BaseRow
from hmi.catalog.tables import TreeStatus

__all__ = [
    "BaseObject",
    "DomainCreate",
    "DomainObject",
    "DomainTableObject",
    "FrequenciesCounted",
    "FrequenciesCreate",
    "RebuildStarted",
    "TreeObject",
    "TreeVersionObject",
]


class DomainCreate(RequestBody):
    name: Annotated[str, Field(pattern=NamePattern, examples=["reviews"])]
    parent: Annotated[str, Field(max_length=64, description="`general` is the root.")] = "general"


class DomainObject(BaseModel):
    object: Literal["hmi.domain"] = "hmi.domain"
    name: str
    parent: Annotated[str | None, Field(description="Null for `general` alone.")]
    created_at: int

    @classmethod
    def from_view(cls, domain: DomainView) -> Self:
        return cls(name=domain.name, parent=domain.parent, created_at=int(domain.created_at))


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


class DomainTableObject(BaseModel):
    """One domain's own table in a published tree, and what lookups for the domain found since."""

    parent: str | None
    entries: Annotated[int, Field(description="N-grams with a row.")]
    bytes: int
    lookups: int
    hits: Annotated[int, Field(description="Of the lookups: found in the domain's table or an ancestor's.")]


class TreeObject(BaseModel):
    object: Literal["hmi.tree"] = "hmi.tree"
    base: str
    number: Annotated[int | None, Field(description="Null where none was published.")]
    published_at: int | None
    report: Annotated[dict[str, Any], Field(description="What the build did.")]
    domains: dict[str, DomainTableObject]


class TreeVersionObject(BaseModel):
    object: Literal["hmi.tree_version"] = "hmi.tree_version"
    number: int
    status: TreeStatus
    error: Annotated[str | None, Field(description="Why the build failed.")]
    report: dict[str, Any]
    created_at: int
    published_at: int | None


class RebuildStarted(BaseModel):
    task: Annotated[str, Field(description="Id of the worker's task; see the tree's versions for what it did.")]


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
