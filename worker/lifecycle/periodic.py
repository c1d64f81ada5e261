"""An action that is repeated on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from worker.lifecycle.logs import log_errors

_log = structlog.get_logger(__name__)


class Periodic:
    """Calls `action` every `seconds`, the first time at once, until `stop`; what it raises is logged.

    Args:
        retry_seconds: Until the next call after one that raised; by default `seconds`.
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
