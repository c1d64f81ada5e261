"""An action that is repeated on a thread of its own, and whether the process is stopping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from hmi.errors import Cancelled
from worker.lifecycle.logs import log_errors

_log = structlog.get_logger(__name__)


class Periodic:
    """Calls `action` every `seconds`, the first time at once, until `stop`.

    What it raises is logged, and it is called again after `retry_seconds`, by default `seconds`.
    """

    def __init__(
        self, name: str, seconds: float, action: Callable[[], object], *, retry_seconds: float | None = None
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._retry_seconds = seconds if retry_seconds is None else retry_seconds
        self._action = action
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when a running action has ended."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            seconds = self._retry_seconds
            with log_errors(_log, "periodic_failed", action=self._name):
                self._action()
                seconds = self._seconds
            if self._stop.wait(seconds):
                return


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
