"""Flushing the n-gram counts of this process's engine into the catalog."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy.orm import Session

from hmi.catalog import (
    ChunkedTransactions,
    Database,
    FrequencyLimits,
    HitCounts,
    NgramCounts,
    domains,
    frequencies,
    trees,
)
from hmi.knowledge.counts import FrequencyCounter, LookupCounts
from worker.serving.source import find_base

_log = structlog.get_logger(__name__)

# Writing the lookup counts of one domain takes the time of so many n-grams.
_USAGE_ROWS = 10
_Places = Mapping[tuple[str, str], tuple[str, str]]


class FrequencyFlusher:
    """Adds a process's counts to the catalog, each once, and keeps the catalog's counts within their limits."""

    def __init__(
        self, database: Database, counter: FrequencyCounter, half_life_seconds: float, limits: FrequencyLimits
    ) -> None:
        self._database = database
        self._counter = counter
        self._half_life_seconds = half_life_seconds
        self._limits = limits
        self._chunks = ChunkedTransactions(database)
        self._lock = threading.Lock()
        self._counted_since = time.monotonic()  # no count that waits is older

    def flush(self) -> None:
        """Raises what keeps counts from being written; those are kept for the next flush."""
        with self._lock:
            began = time.monotonic()
            waiting = self._counter.drain()
            if not waiting:
                self._counted_since = began
                return
            keys = sum(len(delta.keys) for delta in waiting)
            waiting.reverse()
            try:
                with self._database.session(read_only=True) as session:
                    places = _places(session, waiting)
                while waiting:
                    chunk, rows = _take(waiting, self._chunks.rows)
                    try:
                        with self._chunks.transaction(rows) as session:
                            self._write(session, chunk, places)
                    except BaseException:
                        waiting += chunk
                        raise
            except BaseException:
                self._counter.restore(waiting)
                raise
            self._counted_since = began
            _log.debug("frequencies_flushed", keys=keys)
            if forgotten := trees.trim_frequencies_if_due(self._database, self._limits):
                _log.info("frequencies_trimmed", rows=forgotten)

    def _write(self, session: Session, chunk: Sequence[LookupCounts], places: _Places) -> None:
        # Counts of a deleted base or domain are dropped.
        known = [(places[delta.base, delta.domain], delta) for delta in chunk if (delta.base, delta.domain) in places]
        # A wider audience does not get what was counted before.
        widened = domains.widened_domains(session, seconds=time.monotonic() - self._counted_since)
        counts = [
            NgramCounts(*place, delta.keys, delta.counts, delta.tenants)
            for place, delta in known
            if len(delta.keys) and place[1] not in widened
        ]
        if counts:
            frequencies.add(session, counts, half_life_seconds=self._half_life_seconds)
        used = {
            (base_id, delta.number, domain_id): HitCounts(delta.lookups, delta.hits, delta.inherited, delta.approximate)
            for (base_id, domain_id), delta in known
            if delta.lookups
        }
        trees.record_hits(session, used)


def _take(waiting: list[LookupCounts], rows: int) -> tuple[list[LookupCounts], int]:
    """Take up to `rows` rows from the end of `waiting` and return them with their number; lookups go with the first."""
    taken, total = list[LookupCounts](), 0
    while waiting and total < rows:
        delta = waiting.pop()
        size = rows - total
        if len(delta.keys) > size:
            rest = _part(delta, slice(size, None))
            waiting.append(dataclasses.replace(rest, lookups=0, hits=0, inherited=0, approximate=0))
            delta = _part(delta, slice(size))
        taken.append(delta)
        total += len(delta.keys) + _USAGE_ROWS
    return taken, total


def _part(delta: LookupCounts, rows: slice) -> LookupCounts:
    return dataclasses.replace(delta, keys=delta.keys[rows], counts=delta.counts[rows], tenants=delta.tenants[rows])


def _places(session: Session, deltas: Sequence[LookupCounts]) -> dict[tuple[str, str], tuple[str, str]]:
    """Map (base artifact, domain name) to (base id, domain id), for those that still exist."""
    domain_ids = {domain.name: domain.id for domain in domains.list_domains(session)}
    base_ids = {digest: base.id for digest in {d.base for d in deltas} if (base := find_base(session, digest))}
    return {
        (d.base, d.domain): (base_ids[d.base], domain_ids[d.domain])
        for d in deltas
        if d.base in base_ids and d.domain in domain_ids
    }
