"""Keeping what this process works on its own: one thread extends every lease that is held.

A lease is lost when the catalog says so, by its own clock. Then the work stops at its next check, and
whatever it still writes is refused at the fence.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from hmi.catalog import Database, JobMessage, shards, trainings, trees
from hmi.errors import LeaseLost
from worker.lifecycle.logs import describe

__all__ = ["Lease", "LeaseKeeper"]

_log = structlog.get_logger(__name__)

K = TypeVar("K")


@dataclass(eq=False, slots=True)
class Lease:
    """One held lease."""

    name: str
    _lost: threading.Event = field(default_factory=threading.Event)

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    def lose(self) -> None:
        self._lost.set()

    def check(self) -> None:
        """Raises `LeaseLost` once somebody else may own the work."""
        if self.lost:
            raise LeaseLost(f"the lease on {self.name} was lost: another worker may have it by now")


class LeaseKeeper:
    """Extends leases of shards, trainings and tree builds three times within a lease's length."""

    def __init__(self, database: Database, lease_seconds: float) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._shards: dict[JobMessage, Lease] = {}
        self._builds: dict[tuple[str, int], Lease] = {}
        self._trainings: dict[JobMessage, Lease] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def held(self) -> list[Lease]:
        """Everything that this process works on."""
        with self._lock:
            return [*self._shards.values(), *self._builds.values(), *self._trainings.values()]

    @contextlib.contextmanager
    def shard(self, claim: JobMessage) -> Iterator[Lease]:
        """Hold the lease of a claimed shard while the block runs."""
        with self._registered(self._shards, claim, f"shard {claim.job_id}") as lease:
            yield lease

    @contextlib.contextmanager
    def build(self, base_id: str, number: int) -> Iterator[Lease]:
        """Hold the lease of a tree build while the block runs."""
        with self._registered(self._builds, (base_id, number), f"tree {number} of {base_id}") as lease:
            yield lease

    @contextlib.contextmanager
    def training(self, claim: JobMessage) -> Iterator[Lease]:
        """Hold the lease of a claimed fine-tuning job while the block runs."""
        with self._registered(self._trainings, claim, f"fine-tuning job {claim.job_id}") as lease:
            yield lease

    @contextlib.contextmanager
    def _registered(self, leases: dict[K, Lease], key: K, name: str) -> Iterator[Lease]:
        lease = Lease(name)
        with self._lock:
            leases[key] = lease
        try:
            yield lease
        finally:
            with self._lock:
                leases.pop(key, None)

    def extend(self) -> None:
        """Extend all leases once, and mark the ones that are gone."""
        with self._lock:
            held, builds, trainings = dict(self._shards), dict(self._builds), dict(self._trainings)
        if held:
            with self._database.session() as session:
                kept = shards.extend(session, list(held), self._lease_seconds)
            newest = {claim.job_id: max(c.attempt for c in held if c.job_id == claim.job_id) for claim in held}
            for claim, lease in held.items():
                if claim.job_id not in kept or claim.attempt < newest[claim.job_id]:
                    self._lose(lease)
        for (base_id, number), lease in builds.items():
            self._extend_build(base_id, number, lease)
        for training, lease in trainings.items():
            self._extend_training(training, lease)

    def _extend_build(self, base_id: str, number: int, lease: Lease) -> None:
        with self._database.session() as session:
            kept = trees.extend_build(session, base_id, number, self._lease_seconds)
        if not kept:
            self._lose(lease)

    def _extend_training(self, claim: JobMessage, lease: Lease) -> None:
        with self._database.session() as session:
            kept = trainings.extend(session, [claim], self._lease_seconds)
        if not kept:
            self._lose(lease)

    def _lose(self, lease: Lease) -> None:
        # One whose work ended meanwhile was given back, not lost.
        if not lease.lost and lease in self.held():
            _log.warning("lease_lost", work=lease.name)
        lease.lose()

    def _run(self) -> None:
        pause = self._lease_seconds / 3
        while not self._stop.wait(pause):
            try:
                self.extend()
                pause = self._lease_seconds / 3
            except Exception as error:  # noqa: BLE001 - without this thread every lease would run out
                # Not our loss to declare: the fence decides. Ask again soon, while the leases still last.
                _log.warning("leases_not_extended", reason=describe(error))
                pause = min(1.0, self._lease_seconds / 10)
