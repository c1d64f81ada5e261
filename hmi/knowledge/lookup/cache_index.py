"""Which keys stay in a cache of fixed size: a set-associative index that a scan of once-used keys does not empty.

A key may lie only in the few places (ways) of the set that its hash selects. Finding and inserting any number of keys
takes a handful of numpy calls, and nothing is rebuilt as keys come and go.

Eviction follows ARC (Megiddo and Modha, FAST 2003), set by set: the least recently used key goes, but a key that was
used again is *protected*: it counts as used `lead` later than it was. A fingerprint of each evicted or rejected key is
remembered for a while. A key that returns enters protected and moves the lead: down if it had never been used again
(new keys had too little room), up if it had.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.ngrams import Keys

_WAYS = 8  # eight keys are one line of the processor's cache
_REMEMBERED = 4  # fingerprints for each place
_LARGEST_LEAD = 8  # times the number of places, in offered keys
_RAISE = 3  # a protected key's return weighs more: it was useful twice

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


class AssociativeIndex:
    """Places 0..`places` - 1, rounded down to whole sets, and the (group, key) in each. Not thread-safe."""

    PLACE_BYTES = 8 + 4 + 8 + 4 * _REMEMBERED + 1  # most host memory of one place

    def __init__(self, places: int) -> None:
        sets = places // _WAYS
        self.places = sets * _WAYS
        self.evictions = 0
        self._keys = np.zeros((sets, _WAYS), np.uint64)
        self._groups = np.zeros((sets, _WAYS), np.uint32)  # 0: the place is empty
        self._used = np.full((sets, _WAYS), -2, np.int64)  # time of the last use x 2, plus 1 where protected
        self._gone = np.zeros((sets, _WAYS * _REMEMBERED), np.uint32)  # fingerprints; the low bit says protected
        self._oldest_gone = np.zeros(sets, np.int64)  # where each set's next fingerprint goes
        self._now = 0  # counts offered keys
        self._most_lead = _LARGEST_LEAD * self.places
        self._lead = self._most_lead

    def __len__(self) -> int:
        return int(np.count_nonzero(self._groups))

    def find(self, group: int, keys: Keys) -> NDArray[np.int64]:
        """Return the place of each key `[n]`, -1 where it has none. Keys in any order, with or without duplicates."""
        if not self.places:
            return np.full(len(keys), -1, np.int64)
        sets = self._set_of(_hashed(group, keys))
        same = (self._keys[sets] == keys[:, None]) & (self._groups[sets] == group)  # [n, ways]
        way = same.argmax(axis=1)
        return np.where(same[np.arange(len(keys)), way], sets * _WAYS + way, -1)

    def use(self, places: NDArray[np.int64]) -> None:
        """Record that the keys at these places were used again."""
        self._used.reshape(-1)[places] = self._now << 1 | 1

    def offer(self, group: int, keys: Keys) -> NDArray[np.int64]:
        """Insert keys without duplicates, evicting others that are worth less. Return the new place of each key `[n]`;
        -1 where it was rejected, or was present already (which counts as a use)."""
        found = self.find(group, keys)
        self.use(found[found >= 0])
        places = np.full(len(keys), -1, np.int64)
        new = np.flatnonzero(found < 0)
        if not self.places or not len(new):
            return places
        self._now += len(new)
        hashed = _hashed(group, keys[new])
        sets, prints = self._set_of(hashed), _print_of(hashed)
        returned = self._returned(sets, prints)
        order = np.lexsort((~returned, sets))  # by set, returned keys first
        new, sets, prints, returned = new[order], sets[order], prints[order], returned[order]
        admitted, ways = self._make_room(sets, returned)
        self._remember(sets[admitted], ways[admitted], sets[~admitted], prints[~admitted])
        new, sets, ways = new[admitted], sets[admitted], ways[admitted]
        self._keys[sets, ways] = keys[new]
        self._groups[sets, ways] = group
        self._used[sets, ways] = self._now << 1 | returned[admitted]
        places[new] = sets * _WAYS + ways
        return places

    def _set_of(self, hashed: NDArray[np.uint64]) -> NDArray[np.int64]:
        return ((hashed >> _HALF) * np.uint64(len(self._keys)) >> _HALF).astype(np.int64)

    def _returned(self, sets: NDArray[np.int64], prints: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Return which keys are remembered as evicted or rejected; adjust the lead by whether they were protected."""
        gone = self._gone[sets]  # [n, remembered]
        once: NDArray[np.bool_] = (gone == prints[:, None]).any(axis=1)
        protected: NDArray[np.bool_] = (gone == (prints | np.uint32(1))[:, None]).any(axis=1)
        raised, lowered = int(np.count_nonzero(protected)), int(np.count_nonzero(once & ~protected))
        lead = self._lead + _LARGEST_LEAD * (_RAISE * raised - lowered)
        self._lead = min(max(lead, 0), self._most_lead)
        return once | protected

    def _make_room(
        self, sets: NDArray[np.int64], returned: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return, for keys ordered by set, which are admitted `[n]`, and the way that each gets `[n]`.

        The first key of a set gets the place that is worth least, the next the next. Of keys that never returned, only
        the first of a set may take a protected key's place: a batch of them cannot empty a set.
        """
        rank = _rank(sets)
        used = self._used[sets]  # [n, ways]
        worth = (used >> 1) + (used & 1) * self._lead
        ways = worth.argsort(axis=1, kind="stable")[np.arange(len(sets)), np.minimum(rank, _WAYS - 1)]
        idle = worth[np.arange(len(sets)), ways] <= self._now
        return (rank < _WAYS) & (returned | idle | (rank == 0)), ways

    def _remember(
        self,
        sets: NDArray[np.int64],
        ways: NDArray[np.int64],
        rejected_sets: NDArray[np.int64],
        rejected: NDArray[np.uint32],
    ) -> None:
        """Keep the fingerprints of the keys at `sets`, `ways`, which are evicted, and of rejected keys."""
        groups = self._groups[sets, ways]
        evicted = groups > 0
        self.evictions += int(np.count_nonzero(evicted))
        sets, ways = sets[evicted], ways[evicted]
        prints = _print_of(_hashed(groups[evicted], self._keys[sets, ways]))
        prints |= (self._used[sets, ways] & 1).astype(np.uint32)
        where = np.concatenate([sets, rejected_sets])
        order = where.argsort(kind="stable")
        where = where[order]
        column = (self._oldest_gone[where] + _rank(where)) % self._gone.shape[1]
        self._gone[where, column] = np.concatenate([prints, rejected])[order]
        self._oldest_gone[where] = (column + 1) % self._gone.shape[1]  # of duplicates of a set, the last one stays


def _hashed(groups: int | NDArray[np.uint32], keys: Keys) -> NDArray[np.uint64]:
    mixed = (keys ^ np.asarray(groups, np.uint64) * _MIX) * _GOLDEN
    mixed ^= mixed >> _HALF
    mixed *= _MIX
    mixed ^= mixed >> _HALF
    return mixed


def _print_of(hashed: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return 32 bits that did not select the set, the lowest left free."""
    return hashed.astype(np.uint32) & ~np.uint32(1)


def _rank(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many equal numbers precede each, in ascending numbers `[n]`."""
    index = np.arange(len(ordered))
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]
    return index - np.maximum.accumulate(np.where(first, index, 0))
