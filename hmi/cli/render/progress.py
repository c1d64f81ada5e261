"""Progress of long commands: a bar on a terminal, a line every few seconds anywhere else."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hmi.schemas import BatchObject, JobObject, TreeProgress

if TYPE_CHECKING:
    from hmi.training.reports import TrainProgress

_LINE_SECONDS = 5.0
_STAGES = {
    "plan": "planning",
    "check": "checking the previous rows",
    "compute": "computing new rows",
    "write": "writing tables",
    "verify": "verifying a sample",
    "store": "storing tables",
}


class ProgressBar:
    """The progress of one job while the block runs, from any thread.

    Where the console is no terminal, a line appears every few seconds, also while the job reports nothing.

    Args:
        name: Of the job; lines begin with it.
        unit: What is counted, as `lines` or `steps`.
        console: Standard error by default.
    """

    def __init__(
        self, name: str, unit: str = "", console: Console | None = None, line_seconds: float = _LINE_SECONDS
    ) -> None:
        self._name, self._unit = name, unit
        self._console = console or Console(stderr=True)
        self._line_seconds = line_seconds
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._progress.add_task(escape(name), total=None, words="")
        self._task = self._progress.tasks[0]
        self._stage = ""
        self._said = ""
        self._lock = threading.Lock()
        self._last_line = time.monotonic()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="hmi-progress", daemon=True)

    def show(
        self, done: float, total: float | None, words: str = "", *, stage: str = "", seconds_left: float | None = None
    ) -> None:
        """Report `done` of `total`, None where the total is unknown.

        Args:
            stage: The time left is estimated within a stage, since each has a pace of its own.
            seconds_left: Replaces the estimate from the pace so far.
        """
        if stage != self._stage:
            self._stage = stage
            self._progress.reset(self._task.id)
        self._progress.update(self._task.id, completed=done, total=total)
        left = self._task.time_remaining if seconds_left is None else seconds_left
        amount = f"{done:,.0f} of {total:,.0f} {self._unit}".rstrip() if total and self._unit else ""
        ends = f"{duration(left)} left" if left and total and done < total else ""
        self._said = ", ".join(part for part in (stage, amount, words, ends) if part)
        self._progress.update(self._task.id, words=escape(self._said))
        self._print_line()

    def _print_line(self) -> None:
        """Print the state, unless the console is a terminal or the last line is recent."""
        with self._lock:
            if not self._progress.disable or time.monotonic() - self._last_line < self._line_seconds:
                return
            self._last_line = time.monotonic()
            done, total = self._task.completed, self._task.total
            share = f"{100 * done / total:.0f} %" if total else f"{duration(self._task.elapsed or 0)} so far"
            line = f"{self._name}: {share}, {self._said}" if self._said else f"{self._name}: {share}"
            self._console.print(line, soft_wrap=True, markup=False)

    def _tick(self) -> None:
        while not self._over.wait(1):
            self._print_line()

    def show_training(self, reached: TrainProgress, words: str) -> None:
        self.show(reached.done, reached.steps, words, seconds_left=reached.seconds_left)

    def show_batch(self, batch: BatchObject) -> None:
        counts = batch.request_counts
        failed = f"{counts.failed:,} failed" if counts.failed else ""
        stage = batch.status.replace("_", " ")
        self.show(counts.completed + counts.failed, counts.total or None, failed, stage=stage)

    def show_tuning(self, job: JobObject) -> None:
        progress = job.hmi.progress
        if progress is None:
            self.show(0, None, stage=job.status)
            return
        words = f"epoch {progress.epoch} of {progress.epochs}"
        if progress.loss is not None:
            words += f", loss {progress.loss:.3f}"
        self.show(progress.done, progress.steps, words, stage=job.status, seconds_left=progress.seconds_left)

    def show_build(self, progress: TreeProgress | None) -> None:
        """Report a tree's build; None before its worker has reported."""
        if progress is None:
            self.show(0, None, stage="waiting for a worker")
        else:
            stage = _STAGES.get(progress.stage, progress.stage)
            self.show(progress.done, progress.total or None, stage=stage)

    def __enter__(self) -> Self:
        self._progress.start()
        if self._progress.disable:
            self._ticker.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._ticker.ident is not None:
            self._ticker.join()
        self._progress.stop()


def build_words(progress: TreeProgress | None) -> str:
    """How far a build is: `computing new rows, 1,200 of 5,000 (24%)`."""
    if progress is None:
        return "just begun"
    stage = _STAGES.get(progress.stage, progress.stage)
    if not progress.total:
        return stage
    return f"{stage}, {progress.done:,} of {progress.total:,} ({100 * progress.done / progress.total:.0f}%)"


def training_words(reached: TrainProgress) -> str:
    """Epoch, loss and the last score of an adapter's training."""
    score = f", {reached.dev.name.replace('_', ' ')} {reached.dev.score:.3f}" if reached.dev else ""
    return f"epoch {reached.epoch} of {reached.epochs}, loss {reached.loss:.3f}{score}"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
