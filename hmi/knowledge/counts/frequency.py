"""Counting lookups in memory, until they are drained.

Numbers of lookups and hits are exact. So are counts of n-grams, until there are more different ones than may be kept of
a domain or of all domains together; then the lightest are dropped (see `key_counts`). Since the last drain, no count is
off by more than

    lookups of its domain / max_keys + lookups of all domains / total_keys

Every sum here is over sorted arrays; there is no work per n-gram in Python.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.counts.key_counts import KeyCounts, keep_heaviest
from hmi.knowledge.counts.sharing import Bitmaps
from hmi.knowledge.ngrams import Keys

_TOTAL_SHARE = 2  # default of `total_keys`, in domains' worth of keys
_SMALLEST_MERGE = 65_536  # keys; merging costs a sort and a copy, so it waits until there is something to sort
_PENDING_SHARE = 8  # ... and, where many may be kept, until the new ones are an eighth of them
_ARRAY_KEYS = 32  # an array without keys takes as much memory as so many of them
_EXCESS_SHARE = 16  # all domains together may exceed `total_keys` by a sixteenth before keys are dropped


@dataclass(frozen=True, slots=True)
class LookupCounts:
    """What was counted for one domain of one base model since the last drain."""

    base: str  # digest
    domain: str
    number: int  # the tree version that answered these lookups
    keys: Keys  # ascending [n]; if several versions answered, those of all are with the highest number
    counts: NDArray[np.int64]  # [n], never too large
    tenants: Bitmaps  # [n], who asked
    lookups: int  # windows
    hits: int  # of the lookups: held by the tree
    inherited: int = 0  # of the hits: from an ancestor's table
    approximate: int = 0  # of the lookups: under the miss policy `backoff`
    error: int = 0  # upper bound of what any count lacks, missing keys included; 0 while nothing was dropped


class _Totals(NamedTuple):
    """Numbers of lookups, as in `LookupCounts`."""

    lookups: int = 0
    hits: int = 0
    inherited: int = 0
    approximate: int = 0

    def plus(self, other: _Totals) -> _Totals:
        return _Totals(*(one + two for one, two in zip(self, other, strict=True)))


class _Pending(NamedTuple):
    """Windows that one tenant looked up."""

    keys: Keys
    tenant: int  # its bitmap


class _DomainCounter:
    """One domain's counts, and the keys that wait to be merged into them.

    The counter's lock guards `pending`, `pending_keys` and `totals`. `key_counts` and `error` belong to the thread that
    holds `_merging`, or that took the domain out of the counter.
    """

    def __init__(self) -> None:
        self.key_counts = KeyCounts()
        self.error = 0  # of drained counts that were restored
        self.pending: list[_Pending] = []
        self.pending_keys = 0
        self.totals: dict[int, _Totals] = {}  # by tree version

    def take_pending(self) -> list[_Pending]:
        taken, self.pending, self.pending_keys = self.pending, [], 0
        return taken

    def merge(self, taken: list[_Pending], max_keys: int) -> None:
        if taken:
            self.key_counts.add(*_count(taken))
            keep_heaviest([self.key_counts], max_keys)

    def add_totals(self, number: int, totals: _Totals) -> None:
        self.totals[number] = self.totals.get(number, _Totals()).plus(totals)


class FrequencyCounter:
    """Counts lookups per base model and domain. Thread-safe."""

    def __init__(self, max_keys: int, total_keys: int | None = None) -> None:
        """Keep at most `max_keys` different n-grams per base model and domain, 32 bytes each, and at most `total_keys`
        of all domains together, or a sixteenth more for a while; None is twice `max_keys`. Besides, up to half as many
        keys (at least 262,144) of 8 bytes wait to be merged.
        """
        if max_keys < 1:
            raise ValueError(f"max_keys must be positive, not {max_keys}")
        self._max_keys = max_keys
        self._total_keys = _TOTAL_SHARE * max_keys if total_keys is None else total_keys
        if self._total_keys < 1:
            raise ValueError(f"total_keys must be positive, not {total_keys}")
        self._merge_at = max(_SMALLEST_MERGE, self._total_keys // _PENDING_SHARE)
        self._lock = threading.Lock()
        self._merging = threading.Lock()  # always acquired before the other one
        self._domains = defaultdict[tuple[str, str], _DomainCounter](_DomainCounter)
        self._pending_keys = 0

    def count(
        self,
        base: str,
        domain: str,
        keys: Keys,
        hit: NDArray[np.bool_],
        number: int,
        *,
        tenants: Sequence[tuple[int | None, int]] = (),
        inherited: int = 0,
        approximate: bool = False,
    ) -> None:
        """Count every window of `keys` `[n]`; `hit` `[n]` says which of them tree `number` held.

        Args:
            tenants: Who asked: a tenant's bitmap and how many of the windows, in order, are its. 0: it is not known;
                None: its n-grams are not counted. Empty: all are of an unknown tenant.
            inherited: Of the hits, how many came from an ancestor's table.
            approximate: Whether the miss policy was `backoff`.
        """
        totals = _Totals(len(keys), int(np.count_nonzero(hit)), inherited, len(keys) if approximate else 0)
        pending = _by_tenant(keys, tenants or [(0, len(keys))])
        waiting_keys = sum(len(each.keys) + _ARRAY_KEYS for each in pending)
        with self._lock:
            counter = self._domains[base, domain]
            counter.add_totals(number, totals)
            counter.pending += pending
            counter.pending_keys += waiting_keys
            self._pending_keys += waiting_keys
            waiting = self._pending_keys
        # One thread merges while the others keep counting; when they are far ahead of it, they wait.
        if waiting >= self._merge_at and self._merging.acquire(blocking=waiting >= 4 * self._merge_at):
            try:
                self._merge()
            finally:
                self._merging.release()

    def drain(self) -> list[LookupCounts]:
        """Remove and return all counts, ordered by base, domain and number."""
        with self._merging, self._lock:
            domains, self._domains, self._pending_keys = self._domains, defaultdict(_DomainCounter), 0
        drained: list[LookupCounts] = []
        for (base, domain), counter in sorted(domains.items()):
            counter.merge(counter.take_pending(), self._max_keys)
            found, error = counter.key_counts, counter.key_counts.floor + counter.error
            for number, totals in sorted(counter.totals.items()):
                own = slice(None) if number == max(counter.totals) else slice(0)
                drained.append(
                    LookupCounts(
                        base,
                        domain,
                        number,
                        found.keys[own],
                        found.counts[own],
                        found.tenants[own],
                        *totals,
                        error=error,
                    )
                )
        return drained

    def restore(self, drained: Iterable[LookupCounts]) -> None:
        """Put back drained counts that could not be stored."""
        errors: dict[_DomainCounter, int] = {}
        with self._merging:
            for each in drained:
                with self._lock:
                    counter = self._domains[each.base, each.domain]
                    totals = _Totals(each.lookups, each.hits, each.inherited, each.approximate)
                    counter.add_totals(each.number, totals)
                counter.key_counts.add(each.keys, each.counts, each.tenants)
                keep_heaviest([counter.key_counts], self._max_keys)
                errors[counter] = each.error  # the same in all counts of a domain
            for counter, error in errors.items():
                counter.error += error
            self._keep_total()

    def _merge(self) -> None:
        """Merge pending keys, the domains with most of them first, until at most half is left."""
        with self._lock:
            taken = []
            rest = self._pending_keys // 2
            for counter in sorted(self._domains.values(), key=lambda each: each.pending_keys, reverse=True):
                if self._pending_keys <= rest:
                    break
                self._pending_keys -= counter.pending_keys
                taken.append((counter, counter.take_pending()))
        for counter, keys in taken:
            counter.merge(keys, self._max_keys)
        self._keep_total()

    def _keep_total(self) -> None:
        with self._lock:
            summaries = [counter.key_counts for counter in self._domains.values()]
        if sum(map(len, summaries)) > self._total_keys + self._total_keys // _EXCESS_SHARE:
            keep_heaviest(summaries, self._total_keys)


def _by_tenant(keys: Keys, tenants: Sequence[tuple[int | None, int]]) -> list[_Pending]:
    """Copy each tenant's windows, those of one tenant together: the arrays may be views of something large."""
    parts: dict[int, list[Keys]] = defaultdict(list)
    start = 0
    for tenant, count in tenants:
        if tenant is not None and count:
            parts[tenant].append(keys[start : start + count])
        start += count
    return [_Pending(np.concatenate(each).astype(np.uint64, copy=False), tenant) for tenant, each in parts.items()]


def _count(pending: list[_Pending]) -> tuple[Keys, NDArray[np.int64], Bitmaps]:
    """Return the keys, ascending without duplicates, how often each occurs, and who asked."""
    by_tenant: dict[int, list[Keys]] = defaultdict(list)
    for keys, tenant in pending:
        by_tenant[tenant].append(keys)
    counted = [(*_distinct(np.concatenate(each)), tenant) for tenant, each in by_tenant.items()]
    if len(counted) == 1:
        ((keys, counts, tenant),) = counted
        return keys, counts, np.full(len(keys), tenant, np.uint64)
    keys = np.concatenate([each[0] for each in counted])
    order = np.argsort(keys)
    keys = keys[order]
    first = np.flatnonzero(_is_first(keys))
    counts = np.add.reduceat(np.concatenate([each[1] for each in counted])[order], first)
    sizes = [len(each[0]) for each in counted]
    tenants = np.repeat(np.array([each[2] for each in counted], np.uint64), sizes)[order]
    return keys[first], counts, np.bitwise_or.reduceat(tenants, first)


def _distinct(keys: Keys) -> tuple[Keys, NDArray[np.int64]]:
    """Return the keys, ascending without duplicates, and how often each occurs. Sorts `keys`."""
    keys.sort()
    first = np.flatnonzero(_is_first(keys))
    counts = np.full(len(first), len(keys), np.int64)
    counts[:-1] = first[1:]
    counts -= first
    return keys[first], counts


def _is_first(keys: Keys) -> NDArray[np.bool_]:
    """Return whether each of ascending keys differs from the one before it."""
    is_first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    return is_first
