"""What a set of tables would answer of known counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hmi.knowledge.builder import DomainCounts, holds
from hmi.knowledge.hierarchy import Parents, lines_of
from hmi.knowledge.ngrams import Keys

__all__ = ["coverage"]


def coverage(counts: Mapping[str, DomainCounts], parents: Parents, tables: Mapping[str, Keys]) -> dict[str, float]:
    """Predicted hit rate (0..1) of each domain that was asked for anything.

    Args:
        counts: By domain, as given to `plan_tree`.
        tables: Ascending keys by domain: a plan's `tables`, or the `keys` of a tree's tables.
    """
    lines = lines_of(parents)
    rates: dict[str, float] = {}
    for domain in sorted(counts):
        asked = counts[domain]
        total = float(asked.weights.sum())
        if total > 0:
            held = holds([tables[each] for each in lines[domain] if each in tables], asked.keys)
            rates[domain] = float(np.sum(asked.weights, where=held)) / total
    return rates
