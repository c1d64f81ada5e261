"""What a plan's tables will answer of lookups to come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.counts import DomainCounts
from hmi.knowledge.domains import Parents, ancestor_chains, function_run
from hmi.knowledge.ngrams import Keys, holds

__all__ = ["PlannedTable", "predicted_hit_rates"]

_LOOKUP = 1.0  # what one of now weighs; an older one weighs less, so that more than this is more than one


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A planned table, and how firmly each n-gram stands in it.

    Attributes:
        keys: Ascending, `[n]`.
        spare: float64 `[n]`, by how much its saving may fall before it loses its place.
        voters: int64 `[n]`, as in `Demand`.
        common, per_lookup: As in `Demand`.
    """

    keys: Keys
    spare: NDArray[np.float64]
    voters: NDArray[np.int64]
    common: Keys
    per_lookup: float


def predicted_hit_rates(
    counts: Mapping[str, DomainCounts], parents: Parents, held: Mapping[str, PlannedTable], functions: Mapping[str, str]
) -> dict[str, float]:
    """Hit rate (0..1) to be expected of each domain that was asked for anything.

    It is the share of the lookups counted that would be hits if they themselves had not been counted (leave-one-out,
    as in Good and Turing's estimate of unseen species): a window that was asked for once is held, but when it was asked
    for, it was new, and that many of the next ones will be new too. Left out, a lookup can leave its n-gram too light
    for the budget, or no longer shared by several children, so that it stays where the domain does not look.

    That is the rate for lookups of the mix that was counted, each drawn for itself. Traffic that drifts has a lower
    one; texts that were counted and come again have a higher one. A decayed count does not tell two old lookups from
    one of now: n-grams that weigh at most 1 are all taken for asked for once, which is too strict where the half-life
    is not much longer than the time between versions.

    Args:
        counts: By domain, as given to `plan_tree`. What is asked for and not kept in them counts as missed.
        held: By domain.
        functions: Digest of each domain's function: what ancestors of another function hold is no hit.
    """
    lines = ancestor_chains(parents)
    rates: dict[str, float] = {}
    for domain in sorted(counts):
        asked = counts[domain]
        kept = float(asked.weights.sum())
        total = kept if asked.total is None else max(asked.total, kept)
        if total > 0:
            segment, _ = function_run(lines[domain], functions)
            hits = 0.0
            for place, each in enumerate(segment):
                below = held[segment[place - 1]] if place else None
                hits += _hits(asked, held[each], below, held[domain].per_lookup)
            rates[domain] = hits / total
    return rates


def _hits(asked: DomainCounts, table: PlannedTable, below: PlannedTable | None, per_lookup: float) -> float:
    """Weight of a domain's lookups that the table would answer without them.

    Args:
        below: What stands between the domain and the table, its next child that way; None: the table is its own.
    """
    if not len(table.keys):
        return 0.0
    places = np.minimum(np.searchsorted(table.keys, asked.keys), len(table.keys) - 1)
    here = table.keys[places] == asked.keys
    keys, weights, places = asked.keys[here], asked.weights[here], places[here]
    is_last = weights <= _LOOKUP
    lost = np.where(is_last, 2, 0) if below is None else np.where(is_last & ~holds([below.common], keys), 1, 0)
    firm = (table.voters[places] - lost >= 2) & (table.spare[places] > np.minimum(weights, _LOOKUP) * per_lookup)
    return float(np.sum(weights, where=firm))
