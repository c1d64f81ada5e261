"""Knowledge trees: what is published, what is being built, what versions hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from api.schemas.common import Page, RequestBody
from hmi.catalog import TreeStatus
from hmi.knowledge.lookup import KeyLocation

__all__ = [
    "DomainDifferenceObject",
    "DomainTableObject",
    "NgramObject",
    "NgramPage",
    "NgramText",
    "Progress",
    "RebuildRequested",
    "Rollback",
    "TreeBuild",
    "TreeDiff",
    "TreeObject",
    "TreeVersionObject",
    "Used",
]

_Share = Annotated[float | None, Field(ge=0, le=1)]
_BIGGEST = 2**31 - 1


class Used(BaseModel):
    """What lookups found in a version since it was published; 0 everywhere before the first."""

    lookups: int = 0
    hits: Annotated[int, Field(description="Of the lookups: found in the domain's table or an ancestor's.")] = 0
    inherited: Annotated[int, Field(description="Of the hits: an ancestor's row.")] = 0
    approximate: Annotated[
        int, Field(description="Of the lookups: asked under `backoff`, which takes a shorter n-gram's row for a miss.")
    ] = 0
    hit_rate: Annotated[_Share, Field(description="Null where nothing was looked up.")] = None
    predicted_hit_rate: Annotated[_Share, Field(description="What the build expected; null where it did not say.")] = (
        None
    )


class DomainTableObject(Used):
    """One domain's own table in a published tree, and what lookups for the domain found since."""

    parent: str | None
    entries: Annotated[int, Field(description="N-grams with a row.")]
    aliases: Annotated[int, Field(description="N-grams for which the ancestors' row is as good, within the tolerance.")]
    bytes: int
    delta: Annotated[str | None, Field(description="Digest of the domain's own delta, if it has one now.")]
    usable: Annotated[
        bool,
        Field(
            description="False where the table was built for another function than the domain has now, since a delta "
            "or a parent changed: nothing is looked up there until the next rebuild."
        ),
    ]


class Progress(BaseModel):
    """How far a build is."""

    stage: Annotated[str, Field(description="What it is at.")]
    done: Annotated[int, Field(description="Rows of this stage.")]
    total: int

    @classmethod
    def read(cls, stored: dict[str, Any] | None) -> Self | None:
        """None where the build has not said anything yet."""
        if not stored:
            return None
        return cls(
            stage=str(stored.get("stage", "")), done=int(stored.get("done", 0)), total=int(stored.get("total", 0))
        )


class TreeBuild(BaseModel):
    """A version that is being built while another one serves."""

    number: int
    created_at: int
    progress: Progress | None


class TreeObject(BaseModel):
    object: Literal["hmi.tree"] = "hmi.tree"
    base: str
    k: Annotated[int, Field(description="Lower layers that are looked up; with 0 there is no tree.")]
    number: Annotated[int | None, Field(description="Null where none was published.")]
    published_at: Annotated[int | None, Field(description="When it was put into service last.")]
    rolled_back: Annotated[
        bool, Field(description="A newer version was taken back: the schedule builds none until somebody asks.")
    ]
    report: Annotated[dict[str, Any], Field(description="What the build did.")]
    building: Annotated[TreeBuild | None, Field(description="The build that runs now, if one does.")]
    requested: Annotated[
        int | None,
        Field(description="Least version number that answers the open rebuild request; null where none is open."),
    ]
    domains: dict[str, DomainTableObject]


class TreeVersionObject(Used):
    object: Literal["hmi.tree_version"] = "hmi.tree_version"
    number: int
    status: TreeStatus
    served: Annotated[bool, Field(description="Lookups go to this one.")]
    error: Annotated[str | None, Field(description="Why the build failed.")]
    progress: Annotated[Progress | None, Field(description="While it is being built.")]
    report: Annotated[
        dict[str, Any], Field(description="By domain: rows copied and computed, n-grams added, dropped and hoisted.")
    ]
    created_at: int
    published_at: int | None


class RebuildRequested(BaseModel):
    base: str
    number: Annotated[
        int, Field(description="Number of the version that will contain every count committed before this request.")
    ]
    building: Annotated[
        int | None, Field(description="The version that a worker builds before it; null where no build runs.")
    ]


class Rollback(RequestBody):
    to: Annotated[
        int | None, Field(ge=1, le=_BIGGEST, description="A version that is kept. Default: the last one before.")
    ] = None


class NgramText(BaseModel):
    """An n-gram as people read it."""

    id: Annotated[str, Field(description="The packed key, 16 hex digits.", examples=["0000180000a00007"])]
    text: Annotated[str, Field(description="Decoded, special tokens among it.", examples=["[CLS] the film"])]
    tokens: Annotated[
        list[str | None], Field(description="Previous, middle and next token; null for one that is absent.")
    ]
    count: Annotated[float, Field(description="How often it was asked for, older lookups fading.")]


class NgramObject(NgramText):
    object: Literal["hmi.ngram"] = "hmi.ngram"
    held: Annotated[
        KeyLocation,
        Field(
            description="How the published tree answers: the domain's `own` row, one `inherited` from an ancestor, an "
            "ancestor's by an `alias`, or none: `missing`."
        ),
    ]
    holder: Annotated[str | None, Field(description="The domain whose row it is.")]


class NgramPage(Page[NgramObject]):
    """A part of a domain's n-grams, the most frequent first."""

    base: str
    domain: str
    number: Annotated[int | None, Field(description="The tree that was asked; null where none is published.")]
    ngrams: Annotated[int, Field(description="Different n-grams that are counted in the domain.")]


class DomainDifferenceObject(BaseModel):
    """One domain's own table in two versions."""

    parent: str | None
    entries_before: int
    entries_after: int
    aliases_before: int
    aliases_after: int
    bytes_before: int
    bytes_after: int
    added: Annotated[int, Field(description="N-grams that are new to the domain and did not come from a relative.")]
    dropped: Annotated[int, Field(description="N-grams that are gone from the domain and not to a relative.")]
    moved_in: Annotated[
        int, Field(description="N-grams that came from a relative: an ancestor of the same function, or a descendant.")
    ]
    moved_out: Annotated[int, Field(description="N-grams that went to a relative.")]
    heaviest_added: list[NgramText]
    heaviest_dropped: list[NgramText]


class TreeDiff(BaseModel):
    object: Literal["hmi.tree_difference"] = "hmi.tree_difference"
    base: str
    before: int
    after: int
    domains: dict[str, DomainDifferenceObject]
