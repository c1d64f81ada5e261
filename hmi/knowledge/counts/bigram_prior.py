"""What the counts of bigrams say about n-grams: most n-grams were asked for once, and are not worth the same.

As in the smoothing of n-gram models (Chen and Goodman, "An empirical study of smoothing techniques for language
modeling", 1999) a window's future is its own count less a discount, and more the likelier its bigrams make it. The
discount is the same for all, so that it is left out where windows are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge import ngrams
from hmi.knowledge.ngrams import Keys

__all__ = ["worth_of_bigrams"]

_SHARE = 0.5
"""Found on held-out text; from 0.3 to 1 the hit rates differ by less than 0.2 points."""


def worth_of_bigrams(keys: Keys, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lookups `[n]` that each window is worth beyond its own count: half the square root of what is expected of it.

    Expected is (prev, mid) times (mid, next) over (mid): its count if neighbours knew nothing of each other. The root
    keeps three promises: of two windows asked for as often one gets a little more, seldom as much as a lookup; if no
    weight grows by more than a share, what windows are worth does not either (so hysteresis holds); and where a window
    outweighs another in one domain, more weight for it never lets the other overtake.

    Args:
        keys: In any order; one may be there several times, as several domains ask for it.
        weights: Decayed counts above 0 `[n]`, in lookups of now.
    """
    if not len(keys):
        return np.empty(0)
    with_prev = _sums(ngrams.without_next(keys), weights)
    with_next = _sums(ngrams.without_prev(keys), weights)
    middles = ngrams.middles(keys)
    alone = np.bincount(middles, weights)[middles]
    return _SHARE * np.sqrt(with_prev * np.minimum(with_next / alone, 1.0))  # above 1 by rounding alone


def _sums(groups: NDArray[np.uint64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each `[n]` the sum of the weights of its group."""
    is_sorted = bool((groups[1:] >= groups[:-1]).all())
    order: Any = slice(None) if is_sorted else np.argsort(groups)
    ordered = groups[order]
    group = np.concatenate([[False], ordered[1:] != ordered[:-1]]).cumsum()
    sums = np.empty(len(groups))
    sums[order] = np.bincount(group, weights[order])[group]
    return sums
