"""Waiting for something that another process does, with a deadline and an eye on the services."""

from __future__ import annotations

import time
from collections.abc import Callable

from hmi.errors import HmiError

__all__ = ["Patience"]

_POLL_SECONDS = 0.25


class Patience:
    """Looks again and again, a few times a second.

    Args:
        check: Called at every look; raises where waiting has become pointless.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def wait(self, is_done: Callable[[], bool], seconds: float, *, what: str) -> None:
        """Raises `HmiError` (code `took_too_long`) naming `what` after `seconds`."""
        deadline = time.monotonic() + seconds
        while not is_done():
            self._check()
            if time.monotonic() > deadline:
                raise HmiError(f"{what} took longer than {seconds:g} s", code="took_too_long")
            time.sleep(_POLL_SECONDS)
