"""Handlers of signals while services run."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


def ending_signals_leave_the_block() -> contextlib.AbstractContextManager[None]:
    """In the block, SIGTERM and SIGHUP raise `SystemExit`, as Ctrl-C raises `KeyboardInterrupt`.

    By default they would end this process at once, and the kernel would kill the services with it.
    """

    def leave(number: int) -> None:
        raise SystemExit(128 + number)  # as shells report a process that a signal ended

    return _handled(leave, _ENDING)


def signals_hurry(hurry: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
    """In the block, these signals and Ctrl-C call `hurry` and raise nothing."""
    return _handled(lambda number: hurry(), (signal.SIGINT, *_ENDING))


@contextlib.contextmanager
def _handled(action: Callable[[int], None], numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can set handlers and is interrupted by signals
        return

    def handle(number: int, frame: FrameType | None) -> None:
        action(number)

    before: dict[signal.Signals, Any] = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
