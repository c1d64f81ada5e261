"""Trees planned from counts alone, as a worker plans them, and the lookups that they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hmi.knowledge import Keys, Parents, ancestor_chains, functions_of, holds
from hmi.knowledge.counts import DomainCounts, SharingRule
from hmi.knowledge.plan import PreviousTable, TreePlan, plan_tree
from hmi.knowledge.store import entry_bytes
from hmi.spec import HPLMSpec


@dataclass(frozen=True, slots=True)
class Found:
    """Lookups, and how many of them a domain's own table or an ancestor's answered."""

    lookups: int = 0
    own: int = 0
    inherited: int = 0

    @property
    def hit_rate(self) -> float:
        return (self.own + self.inherited) / self.lookups if self.lookups else 0.0

    @property
    def inherited_share(self) -> float:
        """Share of the hits that an ancestor answered."""
        return self.inherited / (self.own + self.inherited) if self.own + self.inherited else 0.0

    def __add__(self, other: Found) -> Found:
        return Found(self.lookups + other.lookups, self.own + other.own, self.inherited + other.inherited)


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans trees of one function, without deltas and rows. `base` is the base model's digest."""

    spec: HPLMSpec
    base: str

    @property
    def entry_bytes(self) -> int:
        return entry_bytes(self.spec.row_dtype, self.spec.hidden_size)

    def plan(
        self,
        counts: Mapping[str, DomainCounts],
        parents: Parents,
        node_entries: int | None,
        old: Mapping[str, PreviousTable] | None = None,
        rule: SharingRule | None = None,
    ) -> TreePlan:
        """Plan the next version with at most `node_entries` entries in each domain's table; None is no limit."""
        limit = sum(len(each.keys) for each in counts.values()) if node_entries is None else node_entries
        functions = functions_of(self.base, parents, {})
        budget = limit * self.entry_bytes, self.entry_bytes
        rule = rule or SharingRule()
        return plan_tree(counts, parents, functions, old or {}, self.spec.vocab_size, *budget, rule=rule)


def count(keys: Keys) -> DomainCounts:
    unique, counts = np.unique(keys, return_counts=True)
    return DomainCounts(unique, counts.astype(np.float64))


def find(queries: Mapping[str, Keys], parents: Parents, tables: Mapping[str, Keys]) -> dict[str, Found]:
    """Look windows up, by domain, in tables of ascending keys whose rows one function computes."""
    lines = ancestor_chains(parents)
    found = {}
    for domain, keys in queries.items():
        own = holds([tables[domain]] if domain in tables else [], keys)
        above = holds([tables[each] for each in lines[domain][1:] if each in tables], keys)
        found[domain] = Found(len(keys), int(np.count_nonzero(own)), int(np.count_nonzero(above & ~own)))
    return found


def heaviest_for(counts: DomainCounts, queries: Keys, hit_rate: float) -> Keys:
    """Return the fewest windows, heaviest first by `counts`, that answer this share of `queries`; ascending.

    Windows that `counts` does not know come last, in the order of the keys.
    """
    unique, lookups = np.unique(queries, return_counts=True)
    places = np.searchsorted(counts.keys, unique)
    known = np.take(counts.keys, places, mode="clip") == unique if len(counts.keys) else np.zeros(len(unique), bool)
    weights = np.where(known, np.take(counts.weights, places, mode="clip") if len(counts.keys) else 0.0, 0.0)
    order = np.argsort(-weights, kind="stable")
    held = np.cumsum(lookups[order])
    enough = int(np.searchsorted(held, hit_rate * len(queries) - 0.5))
    return np.sort(unique[order[: enough + 1]]) if hit_rate > 0 else unique[:0]
