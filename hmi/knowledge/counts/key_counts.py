"""Counts of many keys within bounded memory: the lightest are dropped, with a known bound on the error.

This is a batched Space-Saving summary (Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k
elements in data streams", ICDT 2005). `floor` bounds the count of every key that is not held. A key that enters gets
the floor as its `slack`: it may have been counted that often before it was dropped. Keys compete by `counts + slack`,
the most that they can have been counted. Dropping raises the floor to the greatest of what is dropped.

With `m` = counts + slack - floor, dropping subtracts from all counters at once, as a Misra-Gries summary does: each
time the floor rises by x among k keys, at least k * x of all counts is used up. So the floor, and each count's error,
is at most the sum of all counts over the number of keys kept (Agarwal et al., "Mergeable summaries", PODS 2012).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.counts.sharing import Bitmaps
from hmi.knowledge.ngrams import NO_KEYS, Keys


class KeyCounts:
    def __init__(self) -> None:
        self.keys: Keys = NO_KEYS  # ascending [n]
        self.counts: NDArray[np.int64] = np.empty(0, np.int64)  # [n], since each key entered
        self.tenants: Bitmaps = np.empty(0, np.uint64)  # [n], who asked since each key entered
        self.slack: NDArray[np.int64] = np.empty(0, np.int64)  # [n], the floor when each key entered
        self.floor = 0  # the most that any key which is not held can have been counted

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def margins(self) -> NDArray[np.int64]:
        """By how much each key is above the floor, int64 `[n]`, never below 0."""
        return self.counts + (self.slack - self.floor)

    def add(self, keys: Keys, counts: NDArray[np.int64], tenants: Bitmaps) -> None:
        """Count ascending keys without duplicates."""
        if not len(self.keys):
            self.keys, self.counts, self.tenants = keys, counts, tenants
            self.slack = np.full(len(keys), self.floor, np.int64)
            return
        places = np.searchsorted(self.keys, keys)
        known = self.keys[np.minimum(places, len(self.keys) - 1)] == keys
        self.counts[places[known]] += counts[known]
        self.tenants[places[known]] |= tenants[known]
        new = ~known
        if new.any():
            self._insert(places[new], keys[new], counts[new], tenants[new])

    def _insert(self, places: NDArray[np.int64], keys: Keys, counts: NDArray[np.int64], tenants: Bitmaps) -> None:
        """Insert new keys before the given places."""
        size = len(self.keys)
        before = np.cumsum(np.bincount(places, minlength=size)[:size])  # new keys before each held one
        old, new = before + np.arange(size), places + np.arange(len(places))
        merged = np.empty(size + len(keys), np.uint64)
        merged[old], merged[new] = self.keys, keys
        summed = np.empty(len(merged), np.int64)
        summed[old], summed[new] = self.counts, counts
        bitmaps = np.empty(len(merged), np.uint64)
        bitmaps[old], bitmaps[new] = self.tenants, tenants
        slack = np.zeros(len(merged), np.int64)
        if self.floor:
            slack[old], slack[new] = self.slack, self.floor
        self.keys, self.counts, self.tenants, self.slack = merged, summed, bitmaps, slack

    def raise_floor(self, rise: int, spared_share: float) -> None:
        """Raise the floor by `rise`; drop keys below it, and all but a share of those exactly at it."""
        margins = self.margins
        kept = margins > rise
        ties = np.flatnonzero(margins == rise)
        steps = np.floor(np.arange(len(ties) + 1) * spared_share)  # spread evenly over the keys
        kept[ties[steps[1:] > steps[:-1]]] = True
        self.keys, self.counts = self.keys[kept], self.counts[kept]
        self.tenants, self.slack = self.tenants[kept], self.slack[kept]
        self.floor += rise


def keep_heaviest(summaries: Sequence[KeyCounts], total_keys: int) -> None:
    """Drop the lightest keys of all summaries while there are more than `total_keys`; all floors rise alike."""
    excess = sum(map(len, summaries)) - total_keys
    if excess <= 0:
        return
    margins = np.concatenate([each.margins for each in summaries])
    rise = int(np.partition(margins, excess - 1)[excess - 1])
    above, ties = int(np.count_nonzero(margins > rise)), int(np.count_nonzero(margins == rise))
    del margins
    for each in summaries:
        each.raise_floor(rise, (total_keys - above) / ties)
