"""A training's progress on the terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from hmi.training.report import TrainProgress

__all__ = ["TrainingBar"]


class TrainingBar:
    """Steps, epoch, loss, the last judgement and the time left, on stderr while the block runs."""

    def __init__(self) -> None:
        columns = (TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=None)

    def show(self, progress: TrainProgress) -> None:
        """What training tells after each step."""
        judged = f", {progress.dev.name.replace('_', ' ')} {progress.dev.score:.3f}" if progress.dev else ""
        words = f"epoch {progress.epoch} of {progress.epochs}, loss {progress.loss:.3f}{judged}"
        left = f"{progress.seconds_left:.0f} s left"
        self._bar.update(self._task, total=progress.steps, completed=progress.done, description=f"{words}, {left}")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
