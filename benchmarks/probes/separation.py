"""How well times tell one class from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]

PERCENTILES = (5, 25, 50, 75, 95, 99)
_CERTAINTY = 0.95
_MOST_PROBES = 512
_TRIALS = 2_000
_BINS = 24


@dataclass(frozen=True, slots=True)
class Separation:
    """How well times tell kept sentences from unknown ones."""

    auc: float
    probes_for_95: int | None  # None: not with so many as 512

    @classmethod
    def of(cls, kept: Seconds, unknown: Seconds) -> Self:
        return cls(round(auc(kept, unknown), 4), probes_needed(kept, unknown))


def auc(sooner: Seconds, later: Seconds) -> float:
    """The probability that one of `sooner` is less than one of `later`; equals count half."""
    ordered = np.sort(later)
    above = len(later) - np.searchsorted(ordered, sooner, "right")
    equal = np.searchsorted(ordered, sooner, "right") - np.searchsorted(ordered, sooner, "left")
    return float((above + equal / 2).mean() / len(later))


def probes_needed(kept: Seconds, unknown: Seconds, seed: int = 0) -> int | None:
    """How many times of one class name it correctly in 95 of 100 cases, both classes as likely.

    The likelihood ratio is learnt from one half of the times and tried on the other. None: more than 512.
    """
    rng = np.random.default_rng(seed)
    halves = [np.array_split(rng.permutation(each), 2) for each in (kept, unknown)]
    edges = np.quantile(np.concatenate([learnt for learnt, _ in halves]), np.linspace(0, 1, _BINS + 1)[1:-1])

    def bins(times: Seconds) -> NDArray[np.int64]:
        return np.searchsorted(edges, times)

    shares = [(np.bincount(bins(learnt), minlength=_BINS) + 0.5) / (len(learnt) + _BINS / 2) for learnt, _ in halves]
    ratio = np.log(shares[0] / shares[1])
    tried = [ratio[bins(rest)] for _, rest in halves]
    count = 1
    while count <= _MOST_PROBES:
        right = [np.sign(rng.choice(each, (_TRIALS, count)).sum(1)) for each in tried]
        if (right[0] > 0).mean() + (right[1] < 0).mean() >= 2 * _CERTAINTY:
            return count
        count += max(1, count // 4)
    return None


def percentiles(seconds: Seconds) -> dict[str, float]:
    """In milliseconds."""
    return {f"p{each}": round(1e3 * float(np.percentile(seconds, each)), 3) for each in PERCENTILES}
