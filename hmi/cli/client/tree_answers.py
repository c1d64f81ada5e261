"""What the API says of knowledge trees."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hmi.cli.client.answers import Answer

__all__ = [
    "DomainDifference",
    "DomainTable",
    "Ngram",
    "NgramPage",
    "NgramText",
    "Rebuild",
    "Tree",
    "TreeBuild",
    "TreeDiff",
    "TreeProgress",
    "TreeVersion",
    "Used",
]


class Used(Answer):
    """What lookups found in a version: of `lookups` `hits`, of them `inherited`; `approximate` ran under `backoff`."""

    lookups: int = 0
    hits: int = 0
    inherited: int = 0
    approximate: int = 0
    predicted_hit_rate: float | None = None


class DomainTable(Used):
    """What one domain's own table holds, and what lookups for the domain found since it was published.

    `aliases` are n-grams for which the ancestors' row is as good; `delta` is the digest of the domain's own delta.
    Where it is not `usable`, deltas or parents changed since it was built, and nothing is looked up in it.
    """

    parent: str | None = None
    entries: int = 0
    aliases: int = 0
    bytes: int = 0
    delta: str | None = None
    usable: bool = True


class TreeProgress(Answer):
    """`done` of `total` rows of one stage of a build."""

    stage: str = ""
    done: int = 0
    total: int = 0


class TreeBuild(Answer):
    """A version that is being built."""

    number: int
    created_at: float | None = None
    progress: TreeProgress | None = None


class Tree(Answer):
    """A base model's published knowledge tree. `number` is None where none is published; with `k` 0 none can be.

    `requested` is the least version number that answers the open rebuild request.
    """

    base: str
    k: int | None = None
    number: int | None = None
    published_at: float | None = None
    rolled_back: bool = False
    report: dict[str, Any] = Field(default_factory=dict)
    building: TreeBuild | None = None
    requested: int | None = None
    domains: dict[str, DomainTable] = Field(default_factory=dict)


class TreeVersion(Used):
    number: int
    status: str = ""
    served: bool = False
    created_at: float | None = None
    published_at: float | None = None
    error: str | None = None
    progress: TreeProgress | None = None
    report: dict[str, Any] = Field(default_factory=dict)


class Rebuild(Answer):
    """`number` is the version that will contain every count so far; `building` the one that is built before it."""

    base: str
    number: int
    building: int | None = None


class NgramText(Answer):
    """`count` is how often it was asked for, older lookups fading."""

    id: str
    text: str = ""
    count: float = 0


class Ngram(NgramText):
    """`held`: own, inherited, alias or missing; `holder` is the domain whose row it is."""

    held: str = ""
    holder: str | None = None


class NgramPage(Answer):
    """Some of the n-grams that a domain is asked for, the most frequent first."""

    base: str
    domain: str
    number: int | None = None
    ngrams: int = 0
    data: list[Ngram] = Field(default_factory=list)
    last_id: str | None = None
    has_more: bool = False


class DomainDifference(Answer):
    """One domain's own table in two versions. What moved went along the line of ancestors."""

    parent: str | None = None
    entries_before: int = 0
    entries_after: int = 0
    aliases_before: int = 0
    aliases_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    added: int = 0
    dropped: int = 0
    moved_in: int = 0
    moved_out: int = 0
    heaviest_added: list[NgramText] = Field(default_factory=list)
    heaviest_dropped: list[NgramText] = Field(default_factory=list)


class TreeDiff(Answer):
    base: str
    before: int
    after: int
    domains: dict[str, DomainDifference] = Field(default_factory=dict)
