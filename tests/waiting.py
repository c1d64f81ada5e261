"""Waiting on a condition with a deadline."""

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
    details: Callable[[], str] = str,
) -> None:
    """Return as soon as `condition` returns something true; raise `AssertionError` after `seconds`, with `details`.

    A pause of the whole machine, as virtual ones have now and then, counts as one second, however long it was.
    """
    patience, asked = seconds, time.monotonic()
    while not condition():
        before, asked = asked, time.monotonic()
        patience -= min(asked - before, 1)
        if patience < 0:
            raise AssertionError(f"{what} did not come true within {seconds:g} s\n{details()}")
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
