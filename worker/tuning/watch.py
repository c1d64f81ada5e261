"""What surrounds a training while it runs: its lease, its pace, the word of how far it is, its checkpoint's copies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from hmi.catalog import ClaimedTraining, trainings
from hmi.errors import HmiError, LeaseLost
from worker.lifecycle import Lease, TuningPoint, describe, fail_at
from worker.runtime import Runtime
from worker.tuning.places import checkpoint_path, job_folder
from worker.tuning.wire import Step

__all__ = ["TrainingWatch"]

_log = structlog.get_logger(__name__)

_SAY_SECONDS = 2.0


class TrainingWatch:
    """Told of every step of a training. For one thread.

    Args:
        checkpoint: Where the training writes its own.
    """

    def __init__(self, runtime: Runtime, claim: ClaimedTraining, lease: Lease, checkpoint: Path) -> None:
        self._runtime = runtime
        self._claim = claim
        self._lease = lease
        self._pace = runtime.pace(self.check, runtime.settings.training_share)
        self._checkpoint = checkpoint
        self._saved = _stamp(checkpoint)  # what it was like when it was last looked at,
        self._saved_step = 0  # and the step that it was written after
        self._copied = self._saved
        self._copied_at = self._said_at = time.monotonic()
        self._last: Mapping[str, Any] = {}
        self._epochs_recorded = claim.epochs_recorded

    @property
    def waited_seconds(self) -> float:
        """How long it stood still for jobs."""
        return self._pace.waited_seconds

    def check(self) -> None:
        """Raises `LeaseLost`; `Cancelled` where the worker is stopped."""
        self._lease.check()
        self._runtime.check_running()

    def step(self, step: Step) -> None:
        """Returns when the next step may begin. Raises as `check` does."""
        if step.progress is not None:
            self._note(step.progress)
        self._pace.after(step.cost_seconds)

    def say_report(self, report: Mapping[str, Any]) -> None:
        """The epochs that no event was made of yet: the last one at least. Raises `LeaseLost`.

        Args:
            report: As `hmi.training.reports.report.TrainReport` has it.
        """
        dev, scores = report["dev"], report["dev_scores"]
        for epoch, loss in enumerate(report["losses"], start=1):
            if epoch == report["best_epoch"]:
                judged = dev
            else:
                judged = {"loss": None, "values": {dev["name"]: scores[epoch - 1]}} if dev else None
            self._say_epoch(epoch, _metrics(None, None, loss, judged))

    def copy_checkpoint(self) -> None:
        """Bring the training's checkpoint, where it is newer than the last copy, to where any worker finds it. A copy
        that fails is missed by nobody until the training has to go on from it."""
        self._look()
        if self._saved is None or self._saved == self._copied:
            return
        claim = self._claim
        path = checkpoint_path(claim.job_id, claim.attempt)
        try:
            with self._checkpoint.open("rb") as source, self._runtime.storage.create(path) as target:
                while block := source.read(1024**2):
                    target.write(block)
            with self._runtime.database.session() as session:
                kept = trainings.record_checkpoint(session, claim.job_id, claim.attempt, path, self._saved_step)
            if kept:
                self._forget_others(path)
        except (HmiError, OSError) as error:
            _log.warning("checkpoint_not_copied", job=claim.job_id, reason=describe(error))
            self._copied_at = time.monotonic()
            return
        self._copied, self._copied_at = self._saved, time.monotonic()
        if not kept:
            raise self._lost()
        fail_at(TuningPoint.CHECKPOINT)

    def _say_epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """An epoch is over; once is enough, however often it was trained. Raises `LeaseLost`."""
        if epoch <= self._epochs_recorded:
            return
        said = {name: value for name, value in metrics.items() if value is not None}
        shown = [
            f"{name.replace('_', ' ')}={value:.4f}"
            for name, value in said.items()
            if not name.endswith(("step", "steps"))
        ]
        message, data = f"Epoch {epoch}: {', '.join(shown)}", {"epoch": epoch, **said}
        try:
            with self._runtime.database.session() as session:
                kept = trainings.record_epoch(session, self._claim.job_id, self._claim.attempt, epoch, message, data)
        except HmiError as error:  # the report has the epoch too; a database that is away for a moment ends no training
            _log.warning("epoch_not_said", job=self._claim.job_id, reason=describe(error))
            return
        if not kept:
            raise self._lost()
        self._epochs_recorded = epoch

    def _note(self, progress: Mapping[str, Any]) -> None:
        self._look()
        before, self._last = self._last, progress
        if progress["epoch"] > max(1, before.get("epoch", 1)):
            metrics = _metrics(before.get("done"), progress["steps"], before.get("epoch_loss"), progress["dev"])
            self._say_epoch(progress["epoch"] - 1, metrics)
        now = time.monotonic()
        if not before or now - self._said_at >= _SAY_SECONDS or progress["done"] == progress["steps"]:
            self._said_at = now
            self._say(progress)
        if now - self._copied_at >= self._runtime.settings.training_checkpoint_seconds:
            self.copy_checkpoint()

    def _say(self, progress: Mapping[str, Any]) -> None:
        try:
            with self._runtime.database.session() as session:
                kept = trainings.record_progress(
                    session,
                    self._claim.job_id,
                    self._claim.attempt,
                    _without_tables(progress),
                    seconds_left=progress["seconds_left"],
                )
        except HmiError as error:
            _log.warning("progress_not_written", job=self._claim.job_id, reason=describe(error))
            return
        if not kept:
            raise self._lost()

    def _look(self) -> None:
        """A checkpoint that is new was written after the last step that was told of."""
        stamp = _stamp(self._checkpoint)
        if stamp != self._saved:
            self._saved, self._saved_step = stamp, int(self._last.get("done", 0))

    def _forget_others(self, path: str) -> None:
        folder = job_folder(self._claim.job_id)
        for name in self._runtime.storage.names(folder):
            if f"{folder}/{name}" != path:
                self._runtime.storage.delete(f"{folder}/{name}")

    def _lost(self) -> LeaseLost:
        self._lease.lose()
        return LeaseLost(f"fine-tuning job {self._claim.job_id} was cancelled, or another worker has it")


def _metrics(
    step: int | None, steps: int | None, loss: float | None, dev: Mapping[str, Any] | None
) -> dict[str, float | None]:
    """Of an epoch, as its event has them; `dev` as `hmi.training.reports.metrics.Metrics` has it."""
    judged = {f"valid_{name}": value for name, value in dev["values"].items()} if dev else {}
    return {
        "step": step,
        "total_steps": steps,
        "train_loss": loss,
        "valid_loss": dev["loss"] if dev else None,
        **judged,
    }


def _without_tables(progress: Mapping[str, Any]) -> dict[str, Any]:
    """As it is kept while the training runs: figures, no table of labels."""
    dev = progress["dev"]
    figures = {"name": dev["name"], "loss": dev["loss"], "values": dev["values"]} if dev else None
    return {**progress, "dev": figures}


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino
