"""Sets of n-grams as ascending keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.ngrams import Keys

__all__ = ["NO_KEYS", "holds", "union"]

NO_KEYS: Keys = np.empty(0, np.uint64)


def holds(sets: Sequence[Keys], keys: Keys) -> NDArray[np.bool_]:
    """For each key whether any of the sets (ascending keys) holds it; bool `[n]`. Faster on ascending keys."""
    held = np.zeros(len(keys), np.bool_)
    for each in sets:
        if len(each):
            held |= np.take(each, np.searchsorted(each, keys), mode="clip") == keys
    return held


def union(sets: Sequence[Keys]) -> Keys:
    """All keys of the sets, ascending, each once."""
    filled = [each for each in sets if len(each)]
    if not filled:
        return NO_KEYS
    # `np.unique` of bare values goes through a hash table, many times slower than this for millions of keys.
    keys: Keys = np.sort(np.concatenate(filled))
    once: Keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    return once
