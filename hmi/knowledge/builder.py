"""Which n-grams each domain's table should hold: a pure function of counts and the old version.

From the root down, each domain takes, within its byte budget, the n-grams whose lookups it would
serve most often: its own and its descendants' together, less what an ancestor holds already. An
n-gram is offered to a domain that is asked for it directly, and to one with two or more children
whose subtrees want it: there it is stored once (hoisted) instead of once in each. One that a
single child wants stays with the child. A key at an ancestor serves all below, because one function
computes the rows of the whole line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.errors import InvalidInput
from hmi.knowledge import ngrams
from hmi.knowledge.hierarchy import Parents, children_of, lines_of
from hmi.knowledge.ngrams import Keys

__all__ = ["DomainCounts", "TreePlan", "holds", "plan_tree"]


@dataclass(frozen=True, slots=True)
class DomainCounts:
    """How often a domain was asked for what.

    Attributes:
        keys: uint64 `[n]`, in any order.
        weights: float64 `[n]`, finite and not negative; decayed counts, in any unit.
    """

    keys: Keys
    weights: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TreePlan:
    """What each domain's own table holds: ascending keys, for every domain, be they none."""

    parents: Parents
    tables: Mapping[str, Keys]


@dataclass(frozen=True, slots=True)
class _Demand:
    """What a domain and all below it are asked for.

    Attributes:
        weights: Summed over the subtree.
        offered: bool, the domain itself may hold the key.
    """

    keys: Keys
    weights: NDArray[np.float64]
    offered: NDArray[np.bool_]


def plan_tree(
    counts: Mapping[str, DomainCounts],
    parents: Parents,
    old: Mapping[str, Keys],
    vocabulary: int,
    node_bytes: int,
    row_bytes: int,
    hysteresis: float = 1.2,
) -> TreePlan:
    """Plan the next version.

    The same arguments give the same plan, and a plan given as `old` with the same counts comes out
    again. More weight for a key never loses its place for the domain that asked for it.

    Args:
        counts: By domain; n-grams that are no windows of the vocabulary are left out.
        old: Ascending keys of the old version's tables, by domain; empty for the first.
        vocabulary: Tokens of the model. The root holds all unigrams, outside of any budget.
        node_bytes: Budget of each domain's own table.
        row_bytes: What one entry takes (`rows.entry_bytes`).
        hysteresis: A key that the old version held on a domain's line counts as this much heavier
            there, so that two equals do not take turns.

    Raises:
        Corrupt: The parents are no tree.
        InvalidInput: Counts of a domain that does not exist, or weights that are none.
    """
    if hysteresis < 1 or row_bytes < 1 or node_bytes < 0:
        raise ValueError(f"not a budget: {node_bytes} bytes, {row_bytes} a row, hysteresis {hysteresis}")
    lines = lines_of(parents)
    if unknown := sorted(set(counts) - set(lines)):
        raise InvalidInput(f"counts for domains that do not exist: {', '.join(unknown)}")
    downwards = sorted(lines, key=lambda domain: (len(lines[domain]), domain))
    demand = _demands(counts, parents, downwards, vocabulary)
    capacity = node_bytes // row_bytes
    alone = ngrams.unigrams(vocabulary)
    tables: dict[str, Keys] = {}
    for domain in downwards:
        line = lines[domain]
        above = [tables[each] for each in line[1:]] or [alone]
        wanted = demand[domain]
        free = wanted.offered & ~holds(above, wanted.keys)
        keys, weights = wanted.keys[free], wanted.weights[free]
        kept = holds([old[each] for each in line if each in old], keys)
        chosen = _heaviest(keys, np.where(kept, weights * hysteresis, weights), capacity)
        tables[domain] = np.union1d(alone, chosen) if len(line) == 1 else chosen
    return TreePlan(dict(parents), tables)


def holds(tables: Sequence[Keys], keys: Keys) -> NDArray[np.bool_]:
    """For each key whether any of the tables (ascending keys) holds it; bool `[n]`."""
    held = np.zeros(len(keys), np.bool_)
    for table in tables:
        if len(table):
            held |= np.take(table, np.searchsorted(table, keys), mode="clip") == keys
    return held


def _demands(
    counts: Mapping[str, DomainCounts], parents: Parents, downwards: Sequence[str], vocabulary: int
) -> dict[str, _Demand]:
    children = children_of(parents)
    demand: dict[str, _Demand] = {}
    for domain in reversed(downwards):
        # Two votes offer a key to the domain: its own lookups have both, a child's subtree has one.
        keys, weights, votes = _own(domain, counts.get(domain), vocabulary)
        parts = [(keys, weights, votes)]
        for child in children[domain]:
            below = demand[child]
            parts.append((below.keys, below.weights, np.ones(len(below.keys), np.int64)))
        keys, weights, votes = _merge(parts)
        demand[domain] = _Demand(keys, weights, votes >= 2)
    return demand


def _own(
    domain: str, counts: DomainCounts | None, vocabulary: int
) -> tuple[Keys, NDArray[np.float64], NDArray[np.int64]]:
    """A domain's own lookups: keys, weights and two votes each."""
    if counts is None:
        return np.empty(0, np.uint64), np.empty(0, np.float64), np.empty(0, np.int64)
    if len(counts.keys) != len(counts.weights) or not (np.isfinite(counts.weights) & (counts.weights >= 0)).all():
        raise InvalidInput(f"domain {domain}: each key needs one weight, finite and not negative")
    good = ngrams.in_vocabulary(counts.keys, vocabulary) & (counts.weights > 0)
    keys = counts.keys[good]
    return keys, counts.weights[good], np.full(len(keys), 2, np.int64)


def _merge(
    parts: Sequence[tuple[Keys, NDArray[np.float64], NDArray[np.int64]]],
) -> tuple[Keys, NDArray[np.float64], NDArray[np.int64]]:
    """Each key once, ascending, with the sums of its weights and votes."""
    keys = np.concatenate([part[0] for part in parts])
    weights = np.concatenate([part[1] for part in parts])
    votes = np.concatenate([part[2] for part in parts])
    if not len(keys):
        return keys, weights, votes
    order = np.argsort(keys, kind="stable")  # stable: sums of floats come out the same every time
    keys, weights, votes = keys[order], weights[order], votes[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[first], np.add.reduceat(weights, first), np.add.reduceat(votes, first)


def _heaviest(keys: Keys, weights: NDArray[np.float64], capacity: int) -> Keys:
    """The `capacity` heaviest of ascending keys, ascending; of equals the smaller key."""
    if len(keys) <= capacity:
        return keys
    return np.sort(keys[np.argsort(-weights, kind="stable")[:capacity]])
