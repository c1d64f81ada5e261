"""Monitoring of a training: its pace, its recorded progress and epochs, and the copies of its checkpoint."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from hmi.catalog import ClaimedTraining, trainings
from hmi.errors import HmiError
from worker.lifecycle import Lease, TuningPoint, describe, fail_at, log_errors
from worker.paths import checkpoint_path, training_folder
from worker.runtime import Runtime
from worker.tuning.protocol import Step
from worker.work_monitor import RECORD_SECONDS, WorkMonitor

_log = structlog.get_logger(__name__)


class TrainingMonitor(WorkMonitor):
    """Receives every step of a training, which writes its own checkpoint at `checkpoint`."""

    def __init__(self, runtime: Runtime, claim: ClaimedTraining, lease: Lease, checkpoint: Path) -> None:
        super().__init__(runtime, lease, runtime.settings.training_share)
        self._claim = claim
        self._attempt = (claim.job_id, claim.attempt)
        self._checkpoint = checkpoint
        self._saved = self._copied = _stamp(checkpoint)  # of the newest checkpoint, and of the last that was copied
        self._saved_step = 0  # the step that the newest was written after
        self._copied_at = self._recorded_at = time.monotonic()
        self._last: Mapping[str, Any] = {}
        self._epochs_recorded = claim.epochs_recorded

    def step(self, step: Step) -> None:
        """Return when the next step may begin. Raises as `check` does."""
        if step.progress is not None:
            self._note(step.progress)
        self._pace.after(step.cost_seconds)

    def record_report(self, report: Mapping[str, Any]) -> None:
        """Record the epochs of a `TrainReport` that have no event yet: the last one at least. Raises `LeaseLost`."""
        dev, scores = report["dev"], report["dev_scores"]
        for epoch, loss in enumerate(report["losses"], start=1):
            if epoch == report["best_epoch"]:
                metrics = dev
            else:
                metrics = {"loss": None, "values": {dev["name"]: scores[epoch - 1]}} if dev else None
            self._record_epoch(epoch, _metrics(None, None, loss, metrics))

    def copy_checkpoint(self) -> None:
        """Copy the training's checkpoint, if it is newer than the last copy, to the storage, for any worker.

        A copy that fails is only logged. Raises `LeaseLost`.
        """
        self._find_checkpoint()
        if self._saved is None or self._saved == self._copied:
            return
        path = checkpoint_path(*self._attempt)
        try:
            with self._checkpoint.open("rb") as source, self._runtime.storage.create(path) as target:
                shutil.copyfileobj(source, target, 1024**2)
        except (HmiError, OSError) as error:
            _log.warning("checkpoint_not_copied", job=self._claim.job_id, reason=describe(error))
            return
        finally:
            self._copied_at = time.monotonic()
        if self._record(lambda session: trainings.record_checkpoint(session, *self._attempt, path, self._saved_step)):
            self._copied = self._saved
            self._delete_other_checkpoints(path)
            fail_at(TuningPoint.CHECKPOINT)

    def _record_epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Record an epoch once, however often it was trained. Raises `LeaseLost`."""
        if epoch <= self._epochs_recorded:
            return
        known = {name: value for name, value in metrics.items() if value is not None}
        shown = [
            f"{name.replace('_', ' ')}={value:.4f}"
            for name, value in known.items()
            if not name.endswith(("step", "steps"))
        ]
        message, data = f"Epoch {epoch}: {', '.join(shown)}", {"epoch": epoch, **known}
        # If the database does not answer, the report still has the epoch.
        if self._record(lambda session: trainings.record_epoch(session, *self._attempt, epoch, message, data)):
            self._epochs_recorded = epoch

    def _note(self, progress: Mapping[str, Any]) -> None:
        self._find_checkpoint()
        before, self._last = self._last, progress
        if progress["epoch"] > max(1, before.get("epoch", 1)):
            metrics = _metrics(before.get("done"), progress["steps"], before.get("epoch_loss"), progress["dev"])
            self._record_epoch(progress["epoch"] - 1, metrics)
        now = time.monotonic()
        if not before or now - self._recorded_at >= RECORD_SECONDS or progress["done"] == progress["steps"]:
            self._recorded_at = now
            dev, left = progress["dev"], progress["seconds_left"]
            # Without the tables of labels.
            figures = {"name": dev["name"], "loss": dev["loss"], "values": dev["values"]} if dev else None
            shown = {**progress, "dev": figures}
            self._record(lambda session: trainings.record_progress(session, *self._attempt, shown, seconds_left=left))
        if now - self._copied_at >= self._runtime.settings.training_checkpoint_seconds:
            self.copy_checkpoint()

    def _find_checkpoint(self) -> None:
        """A new checkpoint was written after the last reported step."""
        stamp = _stamp(self._checkpoint)
        if stamp != self._saved:
            self._saved, self._saved_step = stamp, int(self._last.get("done", 0))

    def _delete_other_checkpoints(self, path: str) -> None:
        folder, storage = training_folder(self._claim.job_id), self._runtime.storage
        with log_errors(_log, "checkpoints_not_deleted", HmiError, OSError, job=self._claim.job_id):
            for other in {f"{folder}/{name}" for name in storage.names(folder)} - {path}:
                storage.delete(other)


def _metrics(
    step: int | None, steps: int | None, loss: float | None, dev: Mapping[str, Any] | None
) -> dict[str, float | None]:
    """The metrics of an epoch, as its event has them; `dev` is a `hmi.training.reports.Metrics` as JSON."""
    valid = {f"valid_{name}": value for name, value in dev["values"].items()} if dev else {}
    return {
        "step": step,
        "total_steps": steps,
        "train_loss": loss,
        "valid_loss": dev["loss"] if dev else None,
        **valid,
    }


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino
