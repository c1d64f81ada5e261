"""Counting what was asked for, in memory, until somebody takes the counts away.

Lookups and hits are exact. Counts of n-grams are exact too until a domain has seen more different
ones than `max_keys`: then those with the smallest counts are dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.ngrams import Keys

__all__ = ["FrequencyCounter", "FrequencyDelta"]

_SMALLEST_MERGE = 65_536  # keys; merging costs a sort, so it waits until there is something to sort
_PENDING_SHARE = 8  # ... and, for large tables of counts, until the new ones are an eighth of them


@dataclass(frozen=True, slots=True)
class FrequencyDelta:
    """What was counted for one domain of one base model since the last drain.

    Attributes:
        base: Digest of the base model.
        number: The tree version that answered; `lookups` and `hits` are of this version.
        keys: Ascending uint64 `[n]`. A domain that several versions answered has its n-grams
            in the delta of the highest number; the others have none.
        counts: int64 `[n]`.
    """

    base: str
    domain: str
    number: int
    keys: Keys
    counts: NDArray[np.int64]
    lookups: int
    hits: int


class _Tally:
    """Counts of one domain: `keys` and `counts` merged, `pending` as they came.

    The counter's lock guards `pending` and `usage`; `merging` is held by whoever reads or replaces
    `keys` and `counts`, and is always taken first.
    """

    def __init__(self) -> None:
        self.merging = threading.Lock()
        self.keys: Keys = np.empty(0, np.uint64)
        self.counts: NDArray[np.int64] = np.empty(0, np.int64)
        self.pending: list[tuple[Keys, NDArray[np.int64]]] = []
        self.pending_keys = 0
        self.usage: dict[int, tuple[int, int]] = {}

    def add(self, keys: Keys, counts: NDArray[np.int64], number: int, lookups: int, hits: int) -> None:
        if len(keys):
            self.pending.append((keys, counts))
            self.pending_keys += len(keys)
        before = self.usage.get(number, (0, 0))
        self.usage[number] = (before[0] + lookups, before[1] + hits)

    def take_pending(self) -> list[tuple[Keys, NDArray[np.int64]]]:
        taken, self.pending, self.pending_keys = self.pending, [], 0
        return taken

    def merge(self, taken: list[tuple[Keys, NDArray[np.int64]]], max_keys: int) -> None:
        if not taken:
            return
        keys, counts = _sum_by_key([(self.keys, self.counts), *taken])
        if len(keys) > max_keys:
            kept = np.argpartition(counts, len(keys) - max_keys)[len(keys) - max_keys :]
            kept.sort()
            keys, counts = keys[kept], counts[kept]
        self.keys, self.counts = keys, counts


class FrequencyCounter:
    """Counts lookups per base model and domain. Safe to use from many threads at once.

    Args:
        max_keys: Most different n-grams kept per base model and domain. Beside them wait at most half
            as many (or 262,144, if that is more) that are not merged yet.
    """

    def __init__(self, max_keys: int) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys must be positive, not {max_keys}")
        self._max_keys = max_keys
        self._merge_at = max(_SMALLEST_MERGE, max_keys // _PENDING_SHARE)
        self._lock = threading.Lock()
        self._tallies: dict[tuple[str, str], _Tally] = {}

    def count(self, base: str, domain: str, keys: Keys, hit: NDArray[np.bool_], number: int) -> None:
        """Count every window of `keys` `[n]`; `hit` `[n]` says which of them tree `number` held."""
        unique, counts = np.unique(keys, return_counts=True)
        self._add(base, domain, number, unique, counts.astype(np.int64), len(keys), int(np.count_nonzero(hit)))

    def drain(self) -> list[FrequencyDelta]:
        """Take all counts away, in the order of base, domain and number."""
        deltas: list[FrequencyDelta] = []
        with self._lock:
            tallies = sorted(self._tallies.items())
        for (base, domain), tally in tallies:
            with tally.merging:
                with self._lock:
                    taken, usage, tally.usage = tally.take_pending(), tally.usage, {}
                tally.merge(taken, self._max_keys)
                keys, counts = tally.keys, tally.counts
                tally.keys, tally.counts = np.empty(0, np.uint64), np.empty(0, np.int64)
            for number, (lookups, hits) in sorted(usage.items()):
                last = number == max(usage)
                own = slice(None) if last else slice(0)
                deltas.append(FrequencyDelta(base, domain, number, keys[own], counts[own], lookups, hits))
        return deltas

    def restore(self, deltas: Iterable[FrequencyDelta]) -> None:
        """Put back what `drain` gave and could not be stored."""
        for each in deltas:
            self._add(each.base, each.domain, each.number, each.keys, each.counts, each.lookups, each.hits)

    def _add(
        self, base: str, domain: str, number: int, keys: Keys, counts: NDArray[np.int64], lookups: int, hits: int
    ) -> None:
        with self._lock:
            tally = self._tallies.get((base, domain))
            if tally is None:
                tally = self._tallies[base, domain] = _Tally()
            tally.add(keys, counts, number, lookups, hits)
            waiting = tally.pending_keys
        if waiting < self._merge_at:
            return
        # One thread merges while the others go on counting; when they get far ahead of it, they wait.
        if tally.merging.acquire(blocking=waiting >= 4 * self._merge_at):
            try:
                with self._lock:
                    taken = tally.take_pending()
                tally.merge(taken, self._max_keys)
            finally:
                tally.merging.release()


def _sum_by_key(parts: list[tuple[Keys, NDArray[np.int64]]]) -> tuple[Keys, NDArray[np.int64]]:
    """Keys, each once and ascending, and the sum of its counts."""
    keys = np.concatenate([part[0] for part in parts])
    counts = np.concatenate([part[1] for part in parts])
    if not len(keys):
        return keys, counts
    order = np.argsort(keys)
    keys, counts = keys[order], counts[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[first], np.add.reduceat(counts, first)
