"""Predicting the hit rates of a plan's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.counts import DomainCounts
from hmi.knowledge.domains import Parents, ancestor_chains, function_run
from hmi.knowledge.ngrams import Keys, holds

_LOOKUP = 1.0  # weight of a lookup of now; an older one weighs less, so more than this is more than one lookup


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """The keys of a planned table, and how far each is from losing its place. Other fields are as in `Demand`."""

    keys: Keys  # ascending [n]
    margin: NDArray[np.float64]  # [n], by how much its saving may fall before the key loses its place
    requesters: NDArray[np.int64]  # [n]
    common: Keys
    per_lookup: float


def predicted_hit_rates(
    counts: Mapping[str, DomainCounts], parents: Parents, held: Mapping[str, PlannedTable], functions: Mapping[str, str]
) -> dict[str, float]:
    """Return the expected hit rate (0..1) of each domain that has lookups.

    It is the share of the counted lookups that would be hits if they themselves had not been counted (leave-one-out, as
    in Good and Turing's estimate of unseen species). A window that was looked up once is held now, but was new then,
    and as many of the next lookups will be new too. Without one lookup, an n-gram can be too light for the budget, or
    no longer shared by several children, so that it stays where the domain does not look.

    The rate holds for independent lookups of the counted mix. Drifting traffic has a lower one, repeated texts a higher
    one. A decayed count does not tell two old lookups from one of now: n-grams that weigh at most 1 are taken as looked
    up once, which is too strict if the half-life is not much longer than the time between versions.

    Args:
        counts: By domain, as given to `plan_tree`. Lookups that are not kept in them count as misses.
        functions: Digest of each domain's function: a foreign ancestor's key is no hit.
    """
    chains = ancestor_chains(parents)
    rates: dict[str, float] = {}
    for domain in sorted(counts):
        requested = counts[domain]
        kept = float(requested.weights.sum())
        total = kept if requested.total is None else max(requested.total, kept)
        if total > 0:
            run, _ = function_run(chains[domain], functions)
            hits = 0.0
            for place, each in enumerate(run):
                below = held[run[place - 1]] if place else None
                hits += _hits(requested, held[each], below, held[domain].per_lookup)
            rates[domain] = hits / total
    return rates


def _hits(requested: DomainCounts, table: PlannedTable, below: PlannedTable | None, per_lookup: float) -> float:
    """Return the weight of a domain's lookups that the table would answer if each had not been counted.

    `below` is the table's child on the chain to the domain; None: the table is the domain's own.
    """
    if not len(table.keys):
        return 0.0
    places = np.minimum(np.searchsorted(table.keys, requested.keys), len(table.keys) - 1)
    here = table.keys[places] == requested.keys
    keys, weights, places = requested.keys[here], requested.weights[here], places[here]
    is_last = weights <= _LOOKUP
    lost = np.where(is_last, 2, 0) if below is None else np.where(is_last & ~holds([below.common], keys), 1, 0)
    is_firm = (table.requesters[places] - lost >= 2) & (
        table.margin[places] > np.minimum(weights, _LOOKUP) * per_lookup
    )
    return float(np.sum(weights, where=is_firm))
