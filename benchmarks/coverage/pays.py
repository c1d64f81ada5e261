"""From which hit rate on looking up pays: a curve's crossing with the model that looks nothing up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmi.knowledge import Keys
from hmi.knowledge.counts import DomainCounts

__all__ = ["crossing", "heaviest_for"]


def crossing(rates: Sequence[float], ratios: Sequence[float], level: float = 1.0) -> float | None:
    """The hit rate from which the ratio stays at `level` or above, on straight lines between the measured points.

    Args:
        rates: Ascending.
        ratios: Throughput at each, over that of the model that looks nothing up.

    None where it is below `level` at the highest rate. The lowest rate where it is never below.
    """
    below = [place for place, ratio in enumerate(ratios) if ratio < level]
    if not below:
        return rates[0] if rates else None
    last = below[-1]
    if last == len(ratios) - 1:
        return None
    step = (level - ratios[last]) / (ratios[last + 1] - ratios[last])
    return rates[last] + step * (rates[last + 1] - rates[last])


def heaviest_for(counts: DomainCounts, asked: Keys, hit_rate: float) -> Keys:
    """The fewest windows, heaviest first by `counts`, that hold a share of the windows asked for; ascending.

    What `counts` does not know comes last, in the order of the keys.
    """
    unique, lookups = np.unique(asked, return_counts=True)
    places = np.searchsorted(counts.keys, unique)
    known = np.take(counts.keys, places, mode="clip") == unique if len(counts.keys) else np.zeros(len(unique), bool)
    weights = np.where(known, np.take(counts.weights, places, mode="clip") if len(counts.keys) else 0.0, 0.0)
    order = np.argsort(-weights, kind="stable")
    held = np.cumsum(lookups[order])
    enough = int(np.searchsorted(held, hit_rate * len(asked) - 0.5))
    return np.sort(unique[order[: enough + 1]]) if hit_rate > 0 else unique[:0]
