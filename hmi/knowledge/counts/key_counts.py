"""How often each of many keys came, with the lightest dropped and how much that can matter known.

A batched Space-Saving summary (Metwally, Agrawal and El Abbadi, ICDT 2005). `floor` is the most that a key which is
not here can have come. A key that enters gets it as its `slack`: it may have come so often before, unseen. Keys compete
by `counts + slack`, the most that they can have come. Whoever drops raises the floor to the greatest of what goes.

With `m` = counts + slack - floor, dropping is subtracting from all counters at once, as a Misra-Gries summary does:
each time the floor rises by x among k keys, at least k * x of all that was counted is used up. So the floor is at most
the number of all counts over the number of keys kept, and so is each count's error (Agarwal et al., PODS 2012).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.ngrams import Keys

__all__ = ["KeyCounts", "keep_heaviest"]


class KeyCounts:
    """`keys` ascending uint64 `[n]`; `counts` int64 `[n]` since each entered; `slack` int64 `[n]`."""

    def __init__(self) -> None:
        self.keys: Keys = np.empty(0, np.uint64)
        self.counts: NDArray[np.int64] = np.empty(0, np.int64)
        self.slack: NDArray[np.int64] = np.empty(0, np.int64)
        self.floor = 0

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def margins(self) -> NDArray[np.int64]:
        """By how much each key is above the floor, int64 `[n]`, never below 0."""
        return self.counts + (self.slack - self.floor)

    def add(self, keys: Keys, counts: NDArray[np.int64]) -> None:
        """Count keys, each given once and ascending."""
        if not len(self.keys):
            self.keys, self.counts = keys, counts
            self.slack = np.full(len(keys), self.floor, np.int64)
            return
        places = np.searchsorted(self.keys, keys)
        known = self.keys[np.minimum(places, len(self.keys) - 1)] == keys
        self.counts[places[known]] += counts[known]
        new = ~known
        if new.any():
            self._insert(places[new], keys[new], counts[new])

    def _insert(self, places: NDArray[np.int64], keys: Keys, counts: NDArray[np.int64]) -> None:
        """Put new keys in before the places given."""
        size = len(self.keys)
        before = np.cumsum(np.bincount(places, minlength=size)[:size])  # new ones before each that is there
        old, new = before + np.arange(size), places + np.arange(len(places))
        merged = np.empty(size + len(keys), np.uint64)
        merged[old], merged[new] = self.keys, keys
        summed = np.empty(len(merged), np.int64)
        summed[old], summed[new] = self.counts, counts
        slack = np.zeros(len(merged), np.int64)
        if self.floor:
            slack[old], slack[new] = self.slack, self.floor
        self.keys, self.counts, self.slack = merged, summed, slack

    def raise_floor(self, rise: int, spared_share: float) -> None:
        """Drop what is less than `rise` above the floor, and of what is just that all but a share; raise the floor."""
        margins = self.margins
        kept = margins > rise
        ties = np.flatnonzero(margins == rise)
        steps = np.floor(np.arange(len(ties) + 1) * spared_share)  # spread evenly over the keys
        kept[ties[steps[1:] > steps[:-1]]] = True
        self._keep(kept, rise)

    def _keep(self, kept: NDArray[np.bool_], rise: int) -> None:
        self.keys, self.counts, self.slack = self.keys[kept], self.counts[kept], self.slack[kept]
        self.floor += rise


def keep_heaviest(tallies: Sequence[KeyCounts], total_keys: int) -> None:
    """Drop the lightest of all tallies where there are more keys than that; all floors rise alike."""
    excess = sum(map(len, tallies)) - total_keys
    if excess <= 0:
        return
    margins = np.concatenate([tally.margins for tally in tallies])
    rise = int(np.partition(margins, excess - 1)[excess - 1])
    above, ties = int(np.count_nonzero(margins > rise)), int(np.count_nonzero(margins == rise))
    del margins
    for tally in tallies:
        tally.raise_floor(rise, (total_keys - above) / ties)
