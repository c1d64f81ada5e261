"""What a set of tables would answer of known counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hmi.knowledge.demand import DomainCounts
from hmi.knowledge.hierarchy import Parents, lines_of
from hmi.knowledge.keysets import holds
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.segments import segment_of

__all__ = ["coverage"]


def coverage(
    counts: Mapping[str, DomainCounts],
    parents: Parents,
    tables: Mapping[str, Keys],
    functions: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Predicted hit rate (0..1) of each domain that was asked for anything: of lookups that are like those counted.

    Text brings new n-grams all the time, which no counts foretell; the real rate is lower by as many.

    Args:
        counts: By domain, as given to `plan_tree`. What is asked for and not kept in them counts as missed.
        tables: Ascending keys by domain, with a row or a mark: a plan's `tables`, or a tree's keys and marks.
        functions: Digest of each domain's function; None: all have the same. What ancestors of another function hold
            is no hit.
    """
    lines = lines_of(parents)
    digests = dict.fromkeys(lines, "") if functions is None else functions
    rates: dict[str, float] = {}
    for domain in sorted(counts):
        asked = counts[domain]
        kept = float(asked.weights.sum())
        total = kept if asked.total is None else max(asked.total, kept)
        if total > 0:
            segment, _ = segment_of(lines[domain], digests)
            held = holds([tables[each] for each in segment if each in tables], asked.keys)
            rates[domain] = float(np.sum(asked.weights, where=held)) / total
    return rates
