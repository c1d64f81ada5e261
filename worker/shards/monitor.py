"""What ends a shard early: a lost lease, no outcome for too long, a stopping process.

The thread pool has no time limits, so a shard waits for the engine here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from hmi.errors import Cancelled, HmiError
from worker.lifecycle import Lease, Stopping

T = TypeVar("T")

_POLL_SECONDS = 0.5
# What was submitted usually has its outcome within this; a supervisor kills soon after.
_GRACE_SECONDS = 20.0


class DeadlineExceeded(HmiError):
    """A shard had no outcome for too long."""

    default_code = "shard_deadline"


class EngineStalled(DeadlineExceeded):
    """Neither this shard nor any other had an outcome in that time: the engine ran no batch."""


class ShardMonitor:
    """Watches one shard, which may take any time as long as outcomes arrive.

    Args:
        deadline_seconds: The longest time without an outcome.
        batches: Returns how many batches the engine has run, for any shard.
        alone: The shard has the engine for itself: every batch is its own and counts as progress.
    """

    def __init__(
        self,
        lease: Lease,
        stopping: Stopping,
        deadline_seconds: float,
        batches: Callable[[], int],
        *,
        alone: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lease = lease
        self._stopping = stopping
        self._deadline_seconds = deadline_seconds
        self._batches = batches
        self._alone = alone
        self._clock = clock
        self._has_outcome = False  # since the last check
        self._note_progress()

    def on_outcome(self) -> None:
        """Note that one of the shard's sequences has an outcome; callable from any thread."""
        self._has_outcome = True

    def check(self) -> None:
        """Call before each submission. Raises `LeaseLost`, `Cancelled` when stopping, `DeadlineExceeded`."""
        self._stopping.check()
        self._check_held()

    def wait(self, future: Future[T]) -> T:
        """Return the future's result; raises as `check` does, and `Cancelled` when stopping takes too long."""
        # `done` as well: `wait` does not count a future that was cancelled before it started.
        while not future.done() and not wait([future], timeout=_POLL_SECONDS).done:
            self._check_held()
            if self._stopping.seconds > _GRACE_SECONDS:
                raise Cancelled("the worker is stopping, and the engine did not answer in time")
        if future.cancelled():
            raise Cancelled("the engine was closed")
        result = future.result()
        self._note_progress()
        return result

    def _check_held(self) -> None:
        self._lease.check()
        engine_idle = self._batches() == self._batches_then
        if self._has_outcome or (self._alone and not engine_idle):
            self._has_outcome = False
            self._note_progress()
        if self._clock() - self._since > self._deadline_seconds:
            kind = EngineStalled if engine_idle else DeadlineExceeded
            raise kind(f"no outcome within {self._deadline_seconds:g} seconds")

    def _note_progress(self) -> None:
        self._since, self._batches_then = self._clock(), self._batches()
