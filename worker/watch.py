"""What may end a shard early: a lost lease, its deadline, the process being told to stop.

The thread pool knows no time limits, so whoever waits for the engine asks here.
"""

from __future__ import annotations

from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

from hmi.errors import Cancelled, HmiError
from worker.leases import Lease
from worker.stopping import Stopping

__all__ = ["Watch", "is_deadline"]

T = TypeVar("T")

_DEADLINE = "shard_deadline"
_POLL_SECONDS = 0.5
# What was submitted is usually answered within this; a supervisor kills soon after.
_GRACE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Watch:
    lease: Lease
    stopping: Stopping
    deadline_seconds: float

    def check(self) -> None:
        """Call before giving the engine more. Raises `LeaseLost`, `Cancelled` when stopping, `HmiError` late."""
        if self.stopping.requested:
            raise Cancelled("the worker is stopping")
        self._check_held()

    def wait(self, future: Future[T]) -> T:
        """The future's result, unless one of the above comes first."""
        # `done` besides: `wait` does not count a future that was cancelled and not yet taken up.
        while not future.done() and not wait([future], timeout=_POLL_SECONDS).done:
            self._check_held()
            if self.stopping.seconds > _GRACE_SECONDS:
                raise Cancelled("the worker is stopping, and the engine did not answer in time")
        if future.cancelled():
            raise Cancelled("the engine was closed")
        return future.result()

    def _check_held(self) -> None:
        self.lease.check()
        if self.lease.age_seconds > self.deadline_seconds:
            raise HmiError(f"not done within {self.deadline_seconds:g} seconds", code=_DEADLINE)


def is_deadline(error: BaseException) -> bool:
    return isinstance(error, HmiError) and error.code == _DEADLINE
