"""A training's progress: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:
    from hmi.training.reports import TrainProgress

__all__ = ["Reached", "TrainingBar", "training_words"]

_LINE_SECONDS = 30.0


class Reached(Protocol):
    """How far a training is, as the trainings tell it after each step."""

    @property
    def done(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def seconds_left(self) -> float: ...


class TrainingBar:
    """Steps, what there is to say of them, and the time left, on stderr while the block runs."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=None)
        self._lines = not console.is_terminal
        self._said = time.monotonic()

    def show(self, reached: Reached, words: str) -> None:
        """To be called after each step; `words` say how well it goes."""
        words = f"{words}, {_spoken(reached.seconds_left)} left"
        self._bar.update(self._task, total=reached.steps, completed=reached.done, description=words)
        if self._lines and time.monotonic() - self._said >= _LINE_SECONDS:
            self._said = time.monotonic()
            sys.stderr.write(f"step {reached.done:,} of {reached.steps:,}: {words}\n")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def training_words(reached: TrainProgress) -> str:
    """How well an adapter's training goes."""
    judged = f", {reached.dev.name.replace('_', ' ')} {reached.dev.score:.3f}" if reached.dev else ""
    return f"epoch {reached.epoch} of {reached.epochs}, loss {reached.loss:.3f}{judged}"


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
