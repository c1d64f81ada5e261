"""Counts that fade with time, kept in memory by the formula that the catalog's tables are kept by."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hmi.knowledge import NO_KEYS
from hmi.knowledge.counts import DomainCounts, FrequencyDelta

__all__ = ["FadingCounts"]


class FadingCounts:
    """Of one base model. Time is in any unit, the half-life's; None fades nothing.

    Forward decay (Cormode et al., ICDE 2009): a count at time t weighs 2^(t / half-life), and what is read at time T
    is divided by 2^(T / half-life).
    """

    def __init__(self, half_life: float | None) -> None:
        self._half_life = half_life
        self._counts: dict[str, DomainCounts] = {}

    def add(self, deltas: Iterable[FrequencyDelta], at: float) -> None:
        """Add what a counter gave when it was drained at time `at`."""
        factor = self._weight(at)
        for delta in deltas:
            old = self._counts.get(delta.domain, DomainCounts(NO_KEYS, np.empty(0), 0.0))
            keys, places = np.unique(np.concatenate([old.keys, delta.keys]), return_inverse=True)
            every = np.concatenate([old.weights, delta.counts * factor])
            weights = np.bincount(places, every, len(keys)).astype(np.float64)
            self._counts[delta.domain] = DomainCounts(keys, weights, (old.total or 0.0) + delta.lookups * factor)

    def load(self, at: float) -> dict[str, DomainCounts]:
        """By domain, as they weigh at time `at`."""
        factor = self._weight(at)
        return {
            domain: DomainCounts(each.keys, each.weights / factor, (each.total or 0.0) / factor)
            for domain, each in self._counts.items()
        }

    def _weight(self, at: float) -> float:
        return 1.0 if self._half_life is None else float(2.0 ** (at / self._half_life))
