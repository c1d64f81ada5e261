"""Ctrl-C that is not lost."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interrupts"]

_AGAIN_SECONDS = 2.0


class Interrupts:
    """While entered, Ctrl-C raises `KeyboardInterrupt` as always, and again every two seconds until the block ends.

    Python drops an exception that is raised while something is collected as garbage, and some libraries
    swallow one that comes during an import; either would leave a story of minutes running on.
    """

    def __init__(self, again_seconds: float = _AGAIN_SECONDS) -> None:
        self._again_seconds = again_seconds
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGALRM):
            self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._again_seconds)
        raise KeyboardInterrupt
