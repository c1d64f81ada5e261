"""Leases of the work that this process does: one thread extends every lease that is held.

A lease is lost when the catalog says so, by its own clock. Then the work stops at its next check, and whatever it still
writes is refused by the catalog.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from hmi.catalog import Database
from hmi.errors import LeaseLost
from worker.lifecycle.periodic import Periodic

_log = structlog.get_logger(__name__)

# Extends a lease by so many seconds from now; False if another attempt or worker has the work.
ExtendLease = Callable[[Session, float], bool]


@dataclass(eq=False, slots=True)
class Lease:
    name: str
    extend: ExtendLease
    lost: bool = False  # set by any thread, never reset

    def check(self) -> None:
        """Raises `LeaseLost` once another worker may own the work."""
        if self.lost:
            raise LeaseLost(f"the lease on {self.name} was lost: another worker may have it by now")


class LeaseKeeper:
    """Extends leases three times within a lease's length."""

    def __init__(self, database: Database, lease_seconds: float) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._held: list[Lease] = []
        self._lock = threading.Lock()
        # After a failure, such as a database that does not answer, soon again: the leases still last.
        retry_seconds = min(1.0, lease_seconds / 10)
        self._periodic = Periodic("extend-leases", lease_seconds / 3, self.extend, retry_seconds=retry_seconds)

    def start(self) -> None:
        self._periodic.start()

    def stop(self) -> None:
        self._periodic.stop()

    def held(self) -> list[Lease]:
        with self._lock:
            return list(self._held)

    @contextlib.contextmanager
    def hold(self, name: str, extend: ExtendLease) -> Iterator[Lease]:
        """Keep the lease of claimed work while the block runs."""
        lease = Lease(name, extend)
        with self._lock:
            self._held.append(lease)
        try:
            yield lease
        finally:
            with self._lock:
                self._held.remove(lease)

    def extend(self) -> None:
        """Extend all leases once, and mark those that are lost."""
        for lease in self.held():
            with self._database.session() as session:
                kept = lease.extend(session, self._lease_seconds)
            if not kept:
                # Work that ended meanwhile has released its lease, not lost it.
                if not lease.lost and lease in self.held():
                    _log.warning("lease_lost", work=lease.name)
                lease.lost = True
