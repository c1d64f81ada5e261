"""Splits long writes into many short transactions, so that other writers never wait long.

A writing transaction holds the only write lock of SQLite, or its rows' locks on PostgreSQL. The number of rows that can
be written in a given time differs by a factor of ten between machines and table sizes, so it is measured.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from sqlalchemy.orm import Session

from hmi.catalog.database import Database
from hmi.catalog.trees.frequencies import take_turn

_TARGET_SECONDS = 0.025
_FIRST, _LEAST, _MOST = 500, 50, 20_000  # rows
_GROWTH, _SHRINKING = 1.5, 0.25  # at most, from one transaction to the next


class ChunkedTransactions:
    """Transactions sized to take about `target_seconds` each. Not thread-safe.

    It pauses between two: a process that waits for SQLite's lock polls it and would find it taken each time.
    """

    def __init__(self, database: Database, target_seconds: float = _TARGET_SECONDS) -> None:
        self._database = database
        self._target_seconds = target_seconds
        self._rows = float(_FIRST)
        self._pause_seconds = 0.0

    @property
    def rows(self) -> int:
        """Number of rows for the next transaction."""
        return int(self._rows)

    @contextlib.contextmanager
    def transaction(self, rows: int) -> Iterator[Session]:
        """Begin a transaction that writes `rows` frequencies."""
        time.sleep(self._pause_seconds)
        with self._database.session() as session:
            take_turn(session)
            began = time.perf_counter()  # without the wait for the lock
            yield session
        self.adapt(rows, time.perf_counter() - began)

    def adapt(self, rows: int, seconds: float) -> None:
        """Adapt to a transaction that wrote `rows` and held its locks for `seconds`."""
        self._pause_seconds = seconds if self._database.is_sqlite else 0.0
        if rows * 2 < self._rows and seconds < self._target_seconds:
            return  # a small remainder says little about a full transaction
        factor = self._target_seconds / seconds
        grown = min(rows, self._rows) * min(max(factor, _SHRINKING), _GROWTH)
        self._rows = min(max(grown, _LEAST), _MOST)
