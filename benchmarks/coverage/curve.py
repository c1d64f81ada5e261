"""What a tree is worth: the share of new text's windows that it holds, against what it takes to hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.coverage.corpora import Corpus, Windows
from benchmarks.coverage.planning import Planner
from hmi.knowledge import Keys, Parents, holds, lines_of
from hmi.knowledge.counts import DomainCounts

__all__ = ["Found", "Growth", "Point", "count", "find", "growth", "split", "sweep"]

_JUDGES = 5  # every fifth text judges and is never counted
_HALVINGS = 8  # of the text that is counted, for the growth
_LEAST_TOKENS = 2_000


@dataclass(frozen=True, slots=True)
class Found:
    """Lookups, those that a domain's own table answered, and those that an ancestor's did."""

    lookups: int = 0
    own: int = 0
    inherited: int = 0

    @property
    def hit_rate(self) -> float:
        return (self.own + self.inherited) / self.lookups if self.lookups else 0.0

    @property
    def inherited_share(self) -> float:
        """Of the hits."""
        return self.inherited / (self.own + self.inherited) if self.own + self.inherited else 0.0

    def __add__(self, other: Found) -> Found:
        return Found(self.lookups + other.lookups, self.own + other.own, self.inherited + other.inherited)


@dataclass(frozen=True, slots=True)
class Point:
    """What a budget gave. `node_entries` None is no budget; `bytes` are those of rows and keys."""

    node_entries: int | None
    entries: int
    bytes: int
    found: Found


@dataclass(frozen=True, slots=True)
class Growth:
    """How a domain's own text, all of its windows kept, serves new text of the same domain.

    Attributes:
        tokens, distinct, hit_rate: For more and more text: tokens counted, different windows, share of new text's held.
        points_per_doubling: Hit rate, in points of a hundred, that twice the text adds: the slope of the straight line
            through the hit rates of the larger half.
    """

    domain: str
    tokens: Sequence[int]
    distinct: Sequence[int]
    hit_rate: Sequence[float]
    points_per_doubling: float

    def tokens_for(self, hit_rate: float) -> float:
        """Where that line reaches a hit rate: a guess, the bolder the farther beyond the text that was seen."""
        if self.points_per_doubling <= 0:
            return float("inf")
        return float(self.tokens[-1] * 2.0 ** (100 * (hit_rate - self.hit_rate[-1]) / self.points_per_doubling))


def split(windows: Windows) -> tuple[Keys, Keys]:
    """Windows of the texts that are counted, and of those that judge."""
    kept = len(windows) - len(windows) // _JUDGES
    return windows.part(0, kept), windows.part(kept, len(windows))


def count(keys: Keys) -> DomainCounts:
    unique, counts = np.unique(keys, return_counts=True)
    return DomainCounts(unique, counts.astype(np.float64))


def find(asked: Mapping[str, Keys], parents: Parents, tables: Mapping[str, Keys]) -> dict[str, Found]:
    """What tables (ascending keys by domain) answer of windows, by domain, where one function computes all rows."""
    lines = lines_of(parents)
    found = {}
    for domain, keys in asked.items():
        own = holds([tables[domain]] if domain in tables else [], keys)
        above = holds([tables[each] for each in lines[domain][1:] if each in tables], keys)
        found[domain] = Found(len(keys), int(np.count_nonzero(own)), int(np.count_nonzero(above & ~own)))
    return found


def sweep(
    counts: Mapping[str, DomainCounts],
    asked: Mapping[str, Keys],
    corpus: Corpus,
    planner: Planner,
    budgets: Sequence[int | None],
) -> list[Point]:
    """One point for each budget, in entries of a domain's own table; the unigrams of the root lie outside of it."""
    points = []
    for budget in budgets:
        tables = planner.plan(counts, corpus.parents, budget).tables
        entries = sum(len(keys) for keys in tables.values())
        found = sum(find(asked, corpus.parents, tables).values(), Found())
        points.append(Point(budget, entries, entries * planner.entry_bytes, found))
    return points


def growth(domain: str, windows: Windows) -> Growth:
    """Count more and more of a domain's text and ask for the windows of the rest."""
    counted, judges = split(windows)
    sizes = sorted({len(counted) >> halving for halving in range(_HALVINGS)} - {0})
    sizes = [size for size in sizes if size >= _LEAST_TOKENS] or sizes[-1:]
    distinct, rates = [], []
    for size in sizes:
        unique = np.unique(counted[:size])
        distinct.append(len(unique))
        rates.append(float(holds([unique], judges).mean()) if len(judges) else 0.0)
    half = len(sizes) // 2
    slope = np.polyfit(np.log2(sizes[half:]), rates[half:], 1)[0] * 100 if len(sizes) - half > 1 else 0.0
    return Growth(domain, sizes, distinct, rates, round(float(slope), 2))
