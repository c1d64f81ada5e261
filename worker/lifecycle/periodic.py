"""Something done again and again on a thread of its own, whatever it raises."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from worker.lifecycle.logs import describe

__all__ = ["Periodic"]

_log = structlog.get_logger(__name__)


class Periodic:
    """Calls `action` every `seconds`, the first time at once, until `stop`."""

    def __init__(self, name: str, seconds: float, action: Callable[[], object]) -> None:
        self._name = name
        self._seconds = seconds
        self._action = action
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when a run that is under way has ended."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._action()
            except Exception as error:  # noqa: BLE001 - the next time may go well
                _log.warning("periodic_failed", what=self._name, reason=describe(error))
            if self._stop.wait(self._seconds):
                return
