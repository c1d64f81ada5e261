"""Running one fine-tuning job: its files in, a monitored training process, a model that is served."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from hmi.adapters.formats import FILE_NAME, load_adapter
from hmi.catalog import ClaimedTraining, NewFile, RegisteredModel, TrainingResult, new_id, training_results, trainings
from hmi.errors import Corrupt, HmiError, InvalidInput, LeaseLost, NotFound, StorageFull, Transient
from hmi.jobs import TaskName
from worker.job_runner import JobRunner
from worker.lifecycle import Lease, TuningPoint, describe, fail_at
from worker.paths import (
    CHECKPOINT,
    REPORT,
    delete_work_folders,
    keep_results,
    result_folder,
    training_folder,
    work_folder,
)
from worker.runtime import Runtime
from worker.tuning.inputs import fetch_inputs
from worker.tuning.monitor import TrainingMonitor
from worker.tuning.process import TrainingProcess
from worker.tuning.protocol import Failed, Order, Step

_log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.5


class TrainingRunner(JobRunner[ClaimedTraining]):
    kind = "training"
    task = TaskName.TRAIN
    claimed = TuningPoint.CLAIMED
    final_errors = (InvalidInput, NotFound, Corrupt)

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        super().__init__(
            runtime, trainings, in_flight=settings.trainings_in_flight, max_failures=settings.max_training_failures
        )

    def run(self, job_id: str, attempt: int) -> None:
        """A worker trains one model at a time, and leaves other jobs to other workers."""
        if not self.runtime.training_lock.acquire(blocking=False):
            with self.runtime.database.session() as session:
                trainings.decline(session, job_id, attempt)
            return
        try:
            self._attempt(job_id, attempt, self._train)
        finally:
            self.runtime.training_lock.release()
        self.dispatch()

    def _train(self, claim: ClaimedTraining, lease: Lease) -> None:
        runtime = self.runtime
        cache_dir = runtime.settings.resolved_cache_dir
        with runtime.database.session(read_only=True) as session:
            running = trainings.leased(session)
        delete_work_folders(cache_dir, running)
        folder = work_folder(cache_dir, claim.job_id, claim.attempt)
        try:
            order = fetch_inputs(runtime, claim, folder)
            monitor = TrainingMonitor(runtime, claim, lease, folder / CHECKPOINT)
            _run_process(runtime, order, monitor)
            fail_at(TuningPoint.TRAINED)
            model = _publish(runtime, claim, folder, monitor)
            fail_at(TuningPoint.FINISHED)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        waited = round(monitor.waited_seconds, 3)
        job, attempt = claim.job_id, claim.attempt
        _log.info("training_finished", job=job, attempt=attempt, model=model.name, waited_seconds=waited)

    def _end_stopped(self, session: Session) -> int:
        return trainings.fail_exhausted(session, self._max_failures)

    def _release(self, session: Session, claim: ClaimedTraining, error: BaseException, *, count_failure: bool) -> None:
        retry_seconds = self.runtime.settings.training_retry_seconds
        trainings.release(
            session,
            claim.job_id,
            claim.attempt,
            reason=describe(error),
            count_failure=count_failure,
            wait_seconds=retry_seconds if isinstance(error, Transient | StorageFull) else 0.0,
        )
        self._end_stopped(session)

    def _fail(self, session: Session, claim: ClaimedTraining, error: HmiError) -> None:
        training_results.fail(session, claim, error)


def _run_process(runtime: Runtime, order: Order, monitor: TrainingMonitor) -> None:
    """Return when the training process is done.

    Raises what `monitor` raises, and the error that the training failed with; `HmiError` where the process died or sent
    nothing for too long.
    """
    silence = runtime.settings.training_silence_seconds
    try:
        with TrainingProcess(order) as process:
            while True:
                try:
                    reply = process.receive(_POLL_SECONDS)
                finally:
                    monitor.check()  # what ends the worker may have ended the process too, which is not a failure
                if isinstance(reply, Step):
                    monitor.step(reply)
                    process.resume()
                elif isinstance(reply, Failed):
                    raise reply.error()
                elif reply is not None:
                    return
                elif process.silent_seconds > silence:
                    process.kill()
                    raise HmiError(f"the training process sent nothing for {silence:g} seconds", code="trainer_silent")
    except LeaseLost:
        raise
    except BaseException:
        monitor.copy_checkpoint()  # the process writes a last one when it is stopped
        raise


def _publish(runtime: Runtime, claim: ClaimedTraining, folder: Path, monitor: TrainingMonitor) -> RegisteredModel:
    """Serve the adapter in the work folder under the job's name.

    Raises `LeaseLost` for a stale attempt or a job that has ended; `AdapterRefused`, `StorageFull`, `Transient`.
    """
    if claim.spec is None:
        raise NotFound("the base model that this job was made for is gone", code="base_not_found")
    adapter = load_adapter(folder / FILE_NAME)
    adapter.validate(claim.spec)
    report: dict[str, Any] = json.loads((folder / REPORT).read_bytes())
    monitor.record_report(report)
    with (folder / FILE_NAME).open("rb") as weights:
        artifact = runtime.artifacts.put({FILE_NAME: weights}, owner=claim.job_id)
    file = _store_report(runtime, claim, artifact, report)
    fail_at(TuningPoint.STORED)
    monitor.check()
    runtime.storage.move(f"{training_folder(claim.job_id)}/{file.file_id}", file.path)
    result = TrainingResult(artifact, adapter.summary(), file, int(report["trained_tokens"]))
    try:
        with runtime.database.session() as session:
            model = training_results.succeed(session, claim, result)
    except (LeaseLost, NotFound):  # after any other error the transaction may have been committed
        runtime.storage.delete(file.path)
        raise
    keep_results(runtime.storage, claim.job_id, [file.path], training_folder(claim.job_id))
    return model


def _store_report(runtime: Runtime, claim: ClaimedTraining, artifact: str, report: dict[str, Any]) -> NewFile:
    name = f"{claim.principal.tenant_name}/{claim.target}"
    said = {"fine_tuning_job": claim.job_id, "fine_tuned_model": name, "artifact": artifact, **report}
    content = json.dumps(said, indent=1, ensure_ascii=False).encode()
    file_id = new_id("file-")
    # In the folder that is deleted when the job ends: a crash leaves no file behind.
    with runtime.storage.create(f"{training_folder(claim.job_id)}/{file_id}") as out:
        out.write(content)
    return NewFile(
        file_id=file_id,
        purpose="fine-tune-results",
        filename=f"{claim.job_id}_report.json",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        path=f"{result_folder(claim.job_id)}/{file_id}",
    )
