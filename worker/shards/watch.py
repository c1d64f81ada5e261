"""What may end a shard early: a lost lease, no answer for too long, the process being told to stop.

The thread pool knows no time limits, so whoever waits for the engine asks here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from hmi.errors import Cancelled, HmiError
from worker.lifecycle import Lease, Stopping

__all__ = ["Watch", "is_deadline"]

T = TypeVar("T")

_DEADLINE = "shard_deadline"
_POLL_SECONDS = 0.5
# What was submitted is usually answered within this; a supervisor kills soon after.
_GRACE_SECONDS = 20.0


class Watch:
    """Over one shard, which may take as long as it likes, as long as answers come.

    Args:
        deadline_seconds: The longest that it may be without an answer.
        batches: How many the engine has run, whoever they were for.
        alone: The shard has the engine for itself: what runs is its own, and it gets on even without answers.
        clock: Seconds.
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
        self._has_answer = False  # since it was last looked at
        self._got_on()

    def answered(self) -> None:
        """One of its sequences has an outcome: call from any thread."""
        self._has_answer = True

    @property
    def waited_seconds(self) -> float:
        """Since it last got on, or since its start."""
        return self._clock() - self._since

    @property
    def sees_nothing_run(self) -> bool:
        """Whether the engine has run nothing at all in that time."""
        return self._batches() == self._batches_then

    def check(self) -> None:
        """Call before giving the engine more. Raises `LeaseLost`, `Cancelled` when stopping, `HmiError` late."""
        if self._stopping.requested:
            raise Cancelled("the worker is stopping")
        self._check_held()

    def wait(self, future: Future[T]) -> T:
        """The future's result, unless one of the above comes first."""
        # `done` besides: `wait` does not count a future that was cancelled and not yet taken up.
        while not future.done() and not wait([future], timeout=_POLL_SECONDS).done:
            self._check_held()
            if self._stopping.seconds > _GRACE_SECONDS:
                raise Cancelled("the worker is stopping, and the engine did not answer in time")
        if future.cancelled():
            raise Cancelled("the engine was closed")
        result = future.result()
        self._got_on()
        return result

    def _check_held(self) -> None:
        self._lease.check()
        if self._has_answer or (self._alone and not self.sees_nothing_run):
            self._has_answer = False
            self._got_on()
        if self.waited_seconds > self._deadline_seconds:
            raise HmiError(f"no answer within {self._deadline_seconds:g} seconds", code=_DEADLINE)

    def _got_on(self) -> None:
        self._since, self._batches_then = self._clock(), self._batches()


def is_deadline(error: BaseException) -> bool:
    return isinstance(error, HmiError) and error.code == _DEADLINE
