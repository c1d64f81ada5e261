"""Long writes as many short transactions, so that nobody waits long for one of them.

On SQLite a transaction that writes holds everybody's write lock, on PostgreSQL those of its rows. How many rows may
be written in the time that is allowed differs by a factor of ten between machines and between a new table and a large
one; so it is measured, transaction by transaction.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from sqlalchemy.orm import Session

from hmi.catalog.database import Database
from hmi.catalog.frequencies import take_turn

__all__ = ["ChunkedTransactions"]

_TARGET_SECONDS = 0.025
_FIRST, _LEAST, _MOST = 500, 50, 20_000  # rows
_GROWTH, _SHRINKING = 1.5, 0.25  # at most, from one transaction to the next


class ChunkedTransactions:
    """Transactions of a size that keeps each near `target_seconds`. One thread at a time.

    Between two of them it pauses: who waits for SQLite's lock asks for it again only now and then, and would find
    it taken each time.
    """

    def __init__(self, database: Database, target_seconds: float = _TARGET_SECONDS) -> None:
        self._database = database
        self._target_seconds = target_seconds
        self._rows = float(_FIRST)
        self._pause_seconds = 0.0

    @property
    def rows(self) -> int:
        """How many the next transaction should write."""
        return int(self._rows)

    @contextlib.contextmanager
    def transaction(self, rows: int) -> Iterator[Session]:
        """One that writes so many frequencies, after its turn has come."""
        time.sleep(self._pause_seconds)
        with self._database.session() as session:
            take_turn(session)
            began = time.perf_counter()  # what it waited for the lock is not what it holds it for
            yield session
        self.measured(rows, time.perf_counter() - began)

    def measured(self, rows: int, seconds: float) -> None:
        """Learn from a transaction that wrote so many rows and held its locks so long."""
        self._pause_seconds = seconds if self._database.is_sqlite else 0.0
        if rows * 2 < self._rows and seconds < self._target_seconds:
            return  # a small rest says little of what a full one takes
        factor = self._target_seconds / seconds
        grown = min(rows, self._rows) * min(max(factor, _SHRINKING), _GROWTH)
        self._rows = min(max(grown, _LEAST), _MOST)
