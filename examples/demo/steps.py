"""Numbered steps with progress, waiting with a deadline, and a Ctrl-C that always ends the run."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.text import Text

from hmi.cli.render import ProgressBar
from hmi.errors import HmiError

__all__ = ["Interrupts", "StepFigures", "Steps"]

_POLL_SECONDS = 0.25
_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class StepFigures:
    title: str
    seconds: float


class Steps:
    """Print a heading for each step and, at its end, how long it took.

    Attributes:
        check: Called while waiting; raises when a service has died.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.check: Callable[[], None] = lambda: None
        self.taken: list[StepFigures] = []
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start of the demonstration."""
        return time.monotonic() - self._started

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        begin = time.monotonic()
        self.console.print(Text(f"\n{len(self.taken) + 1}. {title}", style="bold"))
        yield
        taken = time.monotonic() - begin
        self.taken.append(StepFigures(title, taken))
        self.console.print(Text(f"   {taken:.1f} s", style="dim"))

    def say(self, text: str) -> None:
        self.console.print(Text(f"   {text}"), soft_wrap=True)

    def show(self, drawn: RenderableType) -> None:
        self.console.print(drawn)

    def progress(self, name: str, unit: str = "") -> ProgressBar:
        return ProgressBar(f"   {name}", unit, self.console)

    def wait(
        self,
        is_done: Callable[[], bool],
        seconds: float,
        *,
        what: str,
        unit: str = "",
        show: Callable[[ProgressBar], None] = lambda bar: bar.show(0, None),
    ) -> None:
        """Wait for another process. Raises `HmiError` (code `took_too_long`) naming `what` after `seconds`."""
        deadline = time.monotonic() + seconds
        with self.progress(what, unit) as bar:
            while not is_done():
                self.check()
                show(bar)
                if time.monotonic() > deadline:
                    raise HmiError(f"{what} took longer than {seconds:g} s", code="took_too_long")
                time.sleep(_POLL_SECONDS)


class Interrupts:
    """In the block, Ctrl-C raises `KeyboardInterrupt`, and again every two seconds until the block ends.

    Python drops an exception that is raised during garbage collection, and some libraries swallow one during an import.
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
