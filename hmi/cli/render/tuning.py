"""Fine-tuning jobs drawn for a terminal with rich."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from hmi.cli.render.basics import moment, table
from hmi.schemas import JobObject

__all__ = ["TuningBar", "job_table"]


def job_table(jobs: Iterable[JobObject]) -> Table:
    """How far jobs are."""
    rows = [
        (
            each.id,
            each.status,
            each.model,
            each.hmi.task.replace("_", " "),
            each.hmi.examples,
            _share(each),
            each.fine_tuned_model,
            moment(each.created_at),
        )
        for each in jobs
    ]
    return table(("job", "status", "from", "task", "examples", "done", "model", "created"), rows)


class TuningBar(Progress):
    """A bar over a job's steps: `update_from` what the API says of it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps{task.fields[words]}"),
            **options,
        )
        self._bar = self.add_task("fine-tuning", total=None, words="")

    def update_from(self, job: JobObject) -> None:
        progress = job.hmi.progress
        if progress is None:
            self.update(self._bar, description=job.status)
            return
        words = f", epoch {progress.epoch} of {progress.epochs}"
        if progress.loss is not None:
            words += f", loss {progress.loss:.3f}"
        if progress.seconds_left is not None and not job.is_over:
            words += f", {progress.seconds_left:.0f} s left"
        self.update(self._bar, description=job.status, total=progress.steps, completed=progress.done, words=words)


def _share(job: JobObject) -> str:
    progress = job.hmi.progress
    return f"{100 * progress.done // progress.steps}%" if progress and progress.steps else ""
