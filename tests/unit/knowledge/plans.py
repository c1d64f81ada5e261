"""Small plans to try much on: few keys and few weights, so that they collide and tie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from hmi.knowledge import Keys, ancestor_chains, functions_of, ngrams
from hmi.knowledge.counts import DomainCounts
from hmi.knowledge.plan import PreviousTable, TreePlan, plan_tree
from tests.unit.knowledge.builds import PLAIN
from tests.unit.knowledge.tables import FUNCTION, PARENTS, as_keys

VOCABULARY = 4
ROW_BYTES = 10
UNIGRAMS = ngrams.unigrams(VOCABULARY)


def key(token: int, prev: int = 0) -> int:
    """A window of the vocabulary: bigrams stand for all longer n-grams here."""
    return int(ngrams.pack(np.array([prev]), np.array([token]), np.array([-1]))[0])


A, B, C, D = (key(token) for token in range(4))
DELTA = functions_of(FUNCTION, PARENTS, {"reviews": "d1"})  # of reviews, movies and products
BOTH = functions_of(FUNCTION, PARENTS, {"reviews": "d1", "movies": "d2"})
ROW = 24  # bytes; three aliases

# Few keys, few weights: what collides and ties is what is worth testing.
KEYS = [key(token, prev) for prev in (0, 1, 2) for token in range(VOCABULARY)]
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 1.1, 1.2, 2.0, 3.0, 10.0])
COUNTS = st.dictionaries(st.sampled_from(sorted(PARENTS)), st.dictionaries(st.sampled_from(KEYS), WEIGHTS))
HELD = st.dictionaries(st.sampled_from(sorted(PARENTS)), st.sets(st.sampled_from(KEYS)))


@dataclass(frozen=True)
class Case:
    """All arguments of a plan."""

    weights: dict[str, dict[int, float]]
    old: dict[str, set[int]]
    capacity: int

    def counts(self) -> dict[str, DomainCounts]:
        return {domain: counts_of(weights) for domain, weights in self.weights.items()}

    def plan(self, old: dict[str, Keys] | None = None) -> TreePlan:
        before = {domain: as_keys(keys) for domain, keys in self.old.items()} if old is None else old
        tables = {domain: PreviousTable(FUNCTION, keys) for domain, keys in before.items()}
        node_bytes = self.capacity * ROW_BYTES + ROW_BYTES - 1
        return plan_tree(self.counts(), PARENTS, PLAIN, tables, VOCABULARY, node_bytes, ROW_BYTES)


CASES = st.builds(Case, weights=COUNTS, old=HELD, capacity=st.integers(0, 5))


def counts_of(weights: dict[int, float]) -> DomainCounts:
    return DomainCounts(np.array(list(weights), np.uint64), np.array(list(weights.values()), np.float64))


def tables_of(plan: TreePlan) -> dict[str, set[int]]:
    """What each table holds beside the vocabulary's unigrams."""
    return {domain: set(keys.tolist()) - set(UNIGRAMS.tolist()) for domain, keys in plan.tables.items()}


def served(plan: TreePlan, domain: str) -> set[int]:
    return set().union(*(plan.tables[each].tolist() for each in ancestor_chains(PARENTS)[domain]))
