"""Waiting on a condition with a deadline, and whether a process is there."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

__all__ = ["is_running", "wait_until"]


def wait_until(
    condition: Callable[[], object],
    seconds: float = 20,
    *,
    what: str = "the condition",
    evidence: Callable[[], str] = str,
) -> None:
    """Return as soon as `condition` gives something true; raise `AssertionError` after `seconds`, with `evidence`.

    A machine that stands still, as virtual ones do now and then, costs one second of them, however long it was.
    """
    patience, asked = seconds, time.monotonic()
    while not condition():
        before, asked = asked, time.monotonic()
        patience -= min(asked - before, 1)
        if patience < 0:
            raise AssertionError(f"{what} did not come true within {seconds:g} s\n{evidence()}")
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """A process that has ended and waits to be collected is not running."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
