"""Pacing of background work: a share of the time while jobs run, all of it when none do."""

from __future__ import annotations

import time
from collections.abc import Callable

_POLL_SECONDS = 0.1  # between two checks whether jobs still run


class Pace:
    """Called after each small step of some work, it waits while jobs run, so that the steps take `share` of the time.

    For one thread.

    Args:
        share: 0 < share <= 1.
        busy: Whether jobs run now.
        check: Called at every step and while waiting; what it raises ends the work.
    """

    def __init__(
        self,
        share: float,
        busy: Callable[[], bool],
        check: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._share = share
        self._busy = busy
        self._check = check
        self._clock = clock
        self._sleep = sleep
        self._resumed = clock()
        self.waited_seconds = 0.0

    def __call__(self, progress: object = None) -> None:
        """`progress` is ignored, so that a `Pace` fits any callback that reports some."""
        # A step that waited for a job's batch on the device cost the job less than it took: never too little waiting.
        self.after(self._clock() - self._resumed)

    def after(self, cost_seconds: float) -> None:
        """The same for a step that is known to have used the device for so long, which may be less than it took."""
        self._check()
        paused = self._clock()
        until = self._resumed + cost_seconds / self._share
        while (now := self._clock()) < until and self._busy():
            self._sleep(min(_POLL_SECONDS, until - now))
            self._check()
        self._resumed = self._clock()
        self.waited_seconds += self._resumed - paused
