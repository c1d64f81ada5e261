"""Moving what the engine counted from this process's memory into the catalog."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import structlog
from sqlalchemy.orm import Session

from hmi.catalog import domains, frequencies, trees
from hmi.catalog.database import Database
from hmi.knowledge.frequency import FrequencyCounter, FrequencyDelta
from worker.source import find_base

__all__ = ["FrequencyFlusher"]

_log = structlog.get_logger(__name__)

# One transaction's worth: on SQLite it holds everybody's write lock, and shards wait behind it.
_KEYS = 5_000


class FrequencyFlusher:
    """Adds a process's counts to the catalog, each once where the catalog answers."""

    def __init__(self, database: Database, counter: FrequencyCounter, half_life_seconds: float) -> None:
        self._database = database
        self._counter = counter
        self._half_life_seconds = half_life_seconds
        self._lock = threading.Lock()

    def flush(self) -> None:
        """Counts that could not be written stay for the next time. Raises why."""
        with self._lock:
            deltas = self._counter.drain()
            if not deltas:
                return
            pieces = [piece for delta in deltas for piece in _cut(delta)]
            written = 0
            try:
                with self._database.session(read_only=True) as session:
                    places = _places(session, deltas)
                for piece in pieces:
                    self._write(piece, places)
                    written += 1
            except BaseException:
                self._counter.restore(pieces[written:])
                raise
        _log.debug("frequencies_flushed", keys=sum(len(delta.keys) for delta in deltas))

    def _write(self, piece: FrequencyDelta, places: Mapping[tuple[str, str], tuple[str, str]]) -> None:
        place = places.get((piece.base, piece.domain))
        if place is None:
            return  # base or domain is gone, and with it the use of the counts
        base_id, domain_id = place
        with self._database.session() as session:
            if len(piece.keys):
                frequencies.add(
                    session,
                    base_id,
                    domain_id,
                    piece.keys.astype(np.int64),
                    piece.counts,
                    half_life_seconds=self._half_life_seconds,
                )
            if piece.lookups:
                trees.record_usage(session, base_id, piece.number, domain_id, lookups=piece.lookups, hits=piece.hits)


def _cut(delta: FrequencyDelta) -> Iterator[FrequencyDelta]:
    """Pieces of at most `_KEYS` keys; lookups and hits are in the first alone."""
    for start in range(0, max(1, len(delta.keys)), _KEYS):
        part = slice(start, start + _KEYS)
        lookups, hits = (0, 0) if start else (delta.lookups, delta.hits)
        yield dataclasses.replace(delta, keys=delta.keys[part], counts=delta.counts[part], lookups=lookups, hits=hits)


def _places(session: Session, deltas: list[FrequencyDelta]) -> dict[tuple[str, str], tuple[str, str]]:
    """(base artifact, domain name) -> (base id, domain id), for those that still exist."""
    domain_ids = {domain.name: domain.id for domain in domains.list_domains(session)}
    base_ids = {digest: base.id for digest in {d.base for d in deltas} if (base := find_base(session, digest))}
    return {
        (d.base, d.domain): (base_ids[d.base], domain_ids[d.domain])
        for d in deltas
        if d.base in base_ids and d.domain in domain_ids
    }
