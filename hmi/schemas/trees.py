"""Knowledge trees: the published one, the one that is being built, and the contents of versions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hmi.schemas.base import OptionalTimestamp, Page, RequestModel, ResponseModel, Timestamp

_Share = Annotated[float | None, Field(ge=0, le=1)]
_MAX_NUMBER = 2**31 - 1


class LookupCounts(ResponseModel):
    """Lookups in a version since it was published."""

    lookups: int = 0
    hits: Annotated[int, Field(description="Of the lookups: found in the domain's table or an ancestor's.")] = 0
    inherited: Annotated[int, Field(description="Of the hits: an ancestor's row.")] = 0
    approximate: Annotated[
        int, Field(description="Of the lookups: under `backoff`, which estimates the row on a miss.")
    ] = 0
    hit_rate: Annotated[_Share, Field(description="Null where nothing was looked up.")] = None
    predicted_hit_rate: Annotated[_Share, Field(description="The build's estimate; null where it made none.")] = None


class DomainTableObject(LookupCounts):
    """One domain's own table in a published tree, and the lookups for the domain since."""

    parent: str | None
    entries: Annotated[int, Field(description="N-grams with a row.")]
    aliases: Annotated[
        int, Field(description="Aliases: n-grams for which an ancestor's row is good enough, within the tolerance.")
    ]
    bytes: int
    waiting: Annotated[int, Field(description="N-grams that the last build left out: too few tenants ask for them.")]
    unknown: Annotated[int, Field(description="N-grams that it left out: it is not known who asked for them.")]
    delta: Annotated[str | None, Field(description="Digest of the domain's own delta, if it has one now.")]
    usable: Annotated[
        bool,
        Field(
            description="False where the table was built for another function than the domain has now, since a delta "
            "or a parent changed: nothing is looked up there until the next rebuild."
        ),
    ]


class TreeProgress(ResponseModel):
    """Of a build."""

    stage: Annotated[str, Field(description="Plan, compute, write, ...")] = ""
    done: Annotated[int, Field(description="Rows of this stage.")] = 0
    total: int = 0


class TreeBuild(ResponseModel):
    """A version that is being built while another one serves."""

    number: int
    created_at: Timestamp
    progress: TreeProgress | None


class TreeObject(ResponseModel):
    object: Literal["hmi.tree"] = "hmi.tree"
    base: str
    k: Annotated[int, Field(description="Lower layers that are looked up; with 0 there is no tree.")]
    number: Annotated[int | None, Field(description="Null where none was published.")]
    published_at: Annotated[OptionalTimestamp, Field(description="When it was last put into service.")]
    rolled_back: Annotated[
        bool, Field(description="A newer version was rolled back: no scheduled rebuild until one is requested.")
    ]
    report: Annotated[dict[str, Any], Field(description="What the build did.")]
    building: Annotated[TreeBuild | None, Field(description="The build that is running, if any.")]
    requested: Annotated[
        int | None,
        Field(description="Least version number that answers the open rebuild request; null where none is open."),
    ]
    domains: dict[str, DomainTableObject]


class TreeVersionObject(LookupCounts):
    object: Literal["hmi.tree_version"] = "hmi.tree_version"
    number: int
    status: Literal["building", "ready", "failed"]
    served: Annotated[bool, Field(description="Whether this version serves lookups.")]
    error: Annotated[str | None, Field(description="Why the build failed.")]
    progress: Annotated[TreeProgress | None, Field(description="While it is being built.")]
    report: Annotated[
        dict[str, Any], Field(description="By domain: rows copied and computed, n-grams added, dropped and hoisted.")
    ]
    created_at: Timestamp
    published_at: OptionalTimestamp


class RebuildRequested(ResponseModel):
    base: str
    number: Annotated[
        int, Field(description="Number of the version that will contain every count committed before this request.")
    ]
    building: Annotated[
        int | None, Field(description="The version that a worker builds before it; null where no build runs.")
    ]


class Rollback(RequestModel):
    to: Annotated[
        int | None, Field(ge=1, le=_MAX_NUMBER, description="A version that is kept. Default: the one before.")
    ] = None


class NgramText(ResponseModel):
    """An n-gram as text."""

    id: Annotated[str, Field(description="The packed key, 16 hex digits.", examples=["0000180000a00007"])]
    text: Annotated[str, Field(description="Decoded, special tokens among it.", examples=["[CLS] the film"])]
    tokens: Annotated[
        list[str | None], Field(description="Previous, middle and next token; null for one that is absent.")
    ]
    count: Annotated[float, Field(description="Lookups, of which older ones decay.")]


class NgramObject(NgramText):
    object: Literal["hmi.ngram"] = "hmi.ngram"
    held: Annotated[
        Literal["own", "inherited", "alias", "missing"],
        Field(
            description="Where the published tree has the row: `own`, `inherited` from an ancestor, an ancestor's "
            "through an alias (`alias`), or `missing`."
        ),
    ]
    holder: Annotated[str | None, Field(description="The domain whose row it is.")]


class NgramPage(Page[NgramObject]):
    """A part of a domain's n-grams, the most frequent first."""

    base: str
    domain: str
    number: Annotated[int | None, Field(description="Of the published tree; null where none is published.")]
    ngrams: Annotated[int, Field(description="Different n-grams of the domain that are listed here, in all parts.")]
    waiting: Annotated[int, Field(description="Others: not shown before more tenants ask for them.")]
    unknown: Annotated[int, Field(description="Others: counted before it was recorded who asks.")]


class DomainDiffObject(ResponseModel):
    """One domain's own table in two versions."""

    parent: str | None
    entries_before: int
    entries_after: int
    aliases_before: int
    aliases_after: int
    bytes_before: int
    bytes_after: int
    added: Annotated[int, Field(description="N-grams that are new to the domain and were not moved from a relative.")]
    dropped: Annotated[int, Field(description="N-grams that left the domain and were not moved to a relative.")]
    moved_in: Annotated[
        int, Field(description="N-grams that moved from a relative: an ancestor of the same function, or a descendant.")
    ]
    moved_out: Annotated[int, Field(description="N-grams that moved to a relative.")]
    heaviest_added: list[NgramText]
    heaviest_dropped: list[NgramText]


class TreeDiffObject(ResponseModel):
    object: Literal["hmi.tree_difference"] = "hmi.tree_difference"
    base: str
    before: int
    after: int
    domains: dict[str, DomainDiffObject]
