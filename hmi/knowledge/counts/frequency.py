"""Counting what was asked for, in memory, until somebody takes the counts away.

Lookups and hits are exact. So are counts of n-grams, until there are more different ones than may be kept of a
domain or of all domains together; then the lightest go. Which these are, and how much is lost with them, is known as in
Space-Saving and Misra-Gries summaries, merged in bulk (Metwally, Agrawal and El Abbadi, "Efficient computation of
frequent and top-k elements in data streams", ICDT 2005; Agarwal et al., "Mergeable summaries", PODS 2012): a key that
is new may have been counted before and dropped, at most as often as anything that was ever dropped, and it competes
with that advantage. So a heavy n-gram is never lost for coming in small portions, and no count is off by more than

    lookups of its domain / max_keys + lookups of all domains / total_keys

since the last drain. Every sum here is over sorted arrays; nothing is done for a single n-gram.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.counts.key_counts import KeyCounts, keep_heaviest
from hmi.knowledge.ngrams import Keys

__all__ = ["FrequencyCounter", "LookupCounts"]

_TOTAL_SHARE = 2  # domains' worth of keys that are kept in all, where nothing else is said
_SMALLEST_MERGE = 65_536  # keys; merging costs a sort and a copy, so it waits until there is something to sort
_PENDING_SHARE = 8  # ... and, where many may be kept, until the new ones are an eighth of them
_ARRAY_KEYS = 32  # an array of no keys at all takes as much memory as so many of them
_EXCESS_SHARE = 16  # ... and what is dropped of all domains together may become a sixteenth too many before


@dataclass(frozen=True, slots=True)
class LookupCounts:
    """What was counted for one domain of one base model since the last drain.

    Attributes:
        base: Digest of the base model.
        number: The tree version that answered; the numbers of lookups are of this version.
        keys: Ascending uint64 `[n]`. A domain that several versions answered has its n-grams
            in the delta of the highest number; the others have none.
        counts: int64 `[n]`, none greater than it was.
        lookups: How many windows were asked for.
        hits: Of these, those that the tree held.
        inherited: Of the hits, those from an ancestor's table.
        approximate: Of the lookups, those under the policy `backoff`.
        error: What any count is too small by at most, of keys that are missing too; 0 while nothing was dropped.
    """

    base: str
    domain: str
    number: int
    keys: Keys
    counts: NDArray[np.int64]
    lookups: int
    hits: int
    inherited: int = 0
    approximate: int = 0
    error: int = 0


class _Used(NamedTuple):
    """Numbers of lookups, as `LookupCounts` has them."""

    lookups: int = 0
    hits: int = 0
    inherited: int = 0
    approximate: int = 0

    def plus(self, other: _Used) -> _Used:
        return _Used(
            self.lookups + other.lookups,
            self.hits + other.hits,
            self.inherited + other.inherited,
            self.approximate + other.approximate,
        )


_NOTHING = _Used()


class _Domain:
    """One domain's tally, and what waits to be merged into it.

    The counter's lock guards `pending`, `pending_keys` and `used`. The tally and `error` belong to whoever holds
    `merging`, or took the domain out of the counter.
    """

    def __init__(self) -> None:
        self.tally = KeyCounts()
        self.error = 0  # of what was drained and put back
        self.pending: list[Keys] = []
        self.pending_keys = 0
        self.used: dict[int, _Used] = {}

    def take_pending(self) -> list[Keys]:
        taken, self.pending, self.pending_keys = self.pending, [], 0
        return taken

    def merge(self, taken: list[Keys], max_keys: int) -> None:
        if taken:
            self.tally.add(*_count(taken))
            keep_heaviest([self.tally], max_keys)


class FrequencyCounter:
    """Counts lookups per base model and domain. Safe to use from many threads at once.

    Args:
        max_keys: Most different n-grams kept per base model and domain, 24 bytes each.
        total_keys: Most of all of them together, or a sixteenth more for a while; None is twice `max_keys`. Beside
            them wait at most half as many (or 262,144, if that is more) of 8 bytes that are not merged yet.
    """

    def __init__(self, max_keys: int, total_keys: int | None = None) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys must be positive, not {max_keys}")
        self._max_keys = max_keys
        self._total_keys = _TOTAL_SHARE * max_keys if total_keys is None else total_keys
        if self._total_keys < 1:
            raise ValueError(f"total_keys must be positive, not {total_keys}")
        self._merge_at = max(_SMALLEST_MERGE, self._total_keys // _PENDING_SHARE)
        self._lock = threading.Lock()
        self._merging = threading.Lock()  # always taken before the other one
        self._domains: dict[tuple[str, str], _Domain] = {}
        self._pending_keys = 0

    def count(
        self,
        base: str,
        domain: str,
        keys: Keys,
        hit: NDArray[np.bool_],
        number: int,
        *,
        inherited: int = 0,
        approximate: bool = False,
    ) -> None:
        """Count every window of `keys` `[n]`; `hit` `[n]` says which of them tree `number` held.

        `inherited` of the hits came from an ancestor's table; `approximate` says whether the policy was `backoff`.
        """
        used = _Used(len(keys), int(np.count_nonzero(hit)), inherited, len(keys) if approximate else 0)
        with self._lock:
            place = self._domain(base, domain)
            place.used[number] = place.used.get(number, _NOTHING).plus(used)
            if len(keys):
                place.pending.append(np.array(keys, np.uint64))  # a copy: the caller's may be part of something large
                place.pending_keys += len(keys) + _ARRAY_KEYS
                self._pending_keys += len(keys) + _ARRAY_KEYS
            waiting = self._pending_keys
        # One thread merges while the others go on counting; when they get far ahead of it, they wait.
        if waiting >= self._merge_at and self._merging.acquire(blocking=waiting >= 4 * self._merge_at):
            try:
                self._merge()
            finally:
                self._merging.release()

    def drain(self) -> list[LookupCounts]:
        """Take all counts away, in the order of base, domain and number."""
        with self._merging, self._lock:
            domains, self._domains, self._pending_keys = self._domains, {}, 0
        deltas: list[LookupCounts] = []
        for (base, domain), place in sorted(domains.items()):
            place.merge(place.take_pending(), self._max_keys)
            tally, error = place.tally, place.tally.floor + place.error
            for number, used in sorted(place.used.items()):
                own = slice(None) if number == max(place.used) else slice(0)
                deltas.append(
                    LookupCounts(base, domain, number, tally.keys[own], tally.counts[own], *used, error=error)
                )
        return deltas

    def restore(self, deltas: Iterable[LookupCounts]) -> None:
        """Put back what `drain` gave and could not be stored."""
        errors: dict[_Domain, int] = {}
        with self._merging:
            for each in deltas:
                with self._lock:
                    place = self._domain(each.base, each.domain)
                    used = _Used(each.lookups, each.hits, each.inherited, each.approximate)
                    place.used[each.number] = place.used.get(each.number, _NOTHING).plus(used)
                place.tally.add(each.keys, each.counts)
                keep_heaviest([place.tally], self._max_keys)
                errors[place] = each.error  # the same in all deltas of a domain
            for place, error in errors.items():
                place.error += error
            self._keep_total()

    def _domain(self, base: str, domain: str) -> _Domain:
        place = self._domains.get((base, domain))
        if place is None:
            place = self._domains[base, domain] = _Domain()
        return place

    def _merge(self) -> None:
        """Merge what waits of the domains of which most waits, until at most half of it is left."""
        with self._lock:
            taken = []
            rest = self._pending_keys // 2
            for place in sorted(self._domains.values(), key=lambda place: place.pending_keys, reverse=True):
                if self._pending_keys <= rest:
                    break
                self._pending_keys -= place.pending_keys
                taken.append((place, place.take_pending()))
        for place, keys in taken:
            place.merge(keys, self._max_keys)
        self._keep_total()

    def _keep_total(self) -> None:
        with self._lock:
            tallies = [place.tally for place in self._domains.values()]
        if sum(map(len, tallies)) > self._total_keys + self._total_keys // _EXCESS_SHARE:
            keep_heaviest(tallies, self._total_keys)


def _count(parts: list[Keys]) -> tuple[Keys, NDArray[np.int64]]:
    """Keys, each once and ascending, and how often each is there."""
    keys = np.concatenate(parts)
    keys.sort()
    is_first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    first = np.flatnonzero(is_first)
    counts = np.full(len(first), len(keys), np.int64)
    counts[:-1] = first[1:]
    counts -= first
    return keys[first], counts
