"""Whether the process is stopping, and since when."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hmi.errors import Cancelled


@dataclass(slots=True)
class Stopping:
    """May be set from a signal handler: one assignment, no lock."""

    _since: float | None = None

    def set(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    @property
    def requested(self) -> bool:
        return self._since is not None

    @property
    def seconds(self) -> float:
        """Since it was set; 0 while it is not."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def check(self) -> None:
        """Raises `Cancelled` once the process is stopping."""
        if self.requested:
            raise Cancelled("the worker was stopped")
