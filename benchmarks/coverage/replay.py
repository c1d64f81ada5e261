"""Traffic in time order: counted, and the tree rebuilt from the faded counts at the end of every period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.coverage.curve import Found, find
from benchmarks.coverage.fading import FadingCounts
from benchmarks.coverage.planning import Planner
from hmi.knowledge import Keys, Parents, holds, lines_of
from hmi.knowledge.counts import FrequencyCounter
from hmi.knowledge.plan import PreviousTable, TreePlan

__all__ = ["Served", "replay"]

_MAX_KEYS = 2_000_000  # per domain, as engines count by default

Asked = Mapping[str, Keys]
"""The windows of one period's texts, by domain."""


@dataclass(frozen=True, slots=True)
class Served:
    """One period, answered with the version that was planned at the end of the one before.

    Attributes:
        plan: What was planned at its end; `predicted` is the hit rate that the plan was expected to have.
        entries: Of that plan.
        added: Of these, those that the version before did not hold in the same domain.
    """

    found: Found
    by_domain: Mapping[str, Found]
    predicted: float | None
    plan: TreePlan
    entries: int
    added: int


def replay(
    periods: Sequence[Asked], parents: Parents, planner: Planner, node_entries: int | None, half_life: float | None
) -> list[Served]:
    """Answer each period, count it and plan the next version.

    Args:
        half_life: Of the counts, in periods; None: they do not fade.
    """
    counter = FrequencyCounter(_MAX_KEYS)
    counts = FadingCounts(half_life)
    tables: Mapping[str, Keys] = {}
    predicted: float | None = None
    served = []
    for number, asked in enumerate(periods):
        by_domain = find(asked, parents, tables)
        for domain, keys in asked.items():
            hit = holds([tables[each] for each in lines_of(parents)[domain] if each in tables], keys)
            counter.count(planner.base, domain, keys, hit, number, inherited=by_domain[domain].inherited)
        counts.add(counter.drain(), at=number + 1)
        demands = counts.load(at=number + 1)
        plan = planner.plan(demands, parents, node_entries, _held(planner.base, tables))
        before = tables
        tables = plan.tables
        added = sum(len(np.setdiff1d(keys, before.get(domain, keys[:0]))) for domain, keys in tables.items())
        entries = sum(len(keys) for keys in tables.values())
        served.append(Served(sum(by_domain.values(), Found()), by_domain, predicted, plan, entries, added))
        predicted = _mean(plan.predicted, {domain: each.total or 0.0 for domain, each in demands.items()})
    return served


def _held(function: str, tables: Mapping[str, Keys]) -> dict[str, PreviousTable]:
    return {domain: PreviousTable(function, keys) for domain, keys in tables.items() if len(keys)}


def _mean(rates: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
    total = sum(weights[domain] for domain in rates)
    return sum(rates[domain] * weights[domain] for domain in rates) / total if total else None
