"""Running one fine-tuning job: its files in, a training process that is watched, a model that is served.

Whatever happens in between, the job's row says what is true: it ends behind the fence, is given back, or left to its
lease.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog

from hmi.catalog import ClaimedTraining, JobMessage, training_results, trainings
from hmi.errors import Cancelled, Corrupt, HmiError, InvalidInput, LeaseLost, NotFound, StorageFull, Transient
from worker.lifecycle import Lease, TuningPoint, describe, fail_at
from worker.runtime import Runtime
from worker.tuning.dispatch import dispatch_trainings
from worker.tuning.materials import fetch
from worker.tuning.places import CHECKPOINT, forget_folders, work_folder
from worker.tuning.process import TrainingProcess
from worker.tuning.publish import publish
from worker.tuning.watch import TrainingWatch
from worker.tuning.wire import Failed, Order, Step

__all__ = ["run_job"]

_log = structlog.get_logger(__name__)

# What a job is not to blame for, and what ends it at once, since another try would fail alike.
_INNOCENT = (Transient, StorageFull, Cancelled)
_FINAL = (InvalidInput, NotFound, Corrupt)

_POLL_SECONDS = 0.5


def run_job(runtime: Runtime, job_id: str, attempt: int) -> None:
    """Train if this attempt is still the current one; a repeated or overtaken message does nothing.

    A worker trains one model at a time, and lets another worker have the others.
    """
    if not runtime.training.acquire(blocking=False):
        with runtime.database.session() as session:
            trainings.decline(session, job_id, attempt)
        return
    try:
        _run(runtime, job_id, attempt)
    finally:
        runtime.training.release()
    dispatch_trainings(runtime)


def _run(runtime: Runtime, job_id: str, attempt: int) -> None:
    with runtime.database.session() as session:
        claim = trainings.claim(
            session, job_id, attempt, owner=runtime.owner, lease_seconds=runtime.settings.lease_seconds
        )
    if claim is None:
        _log.info("training_dropped", job=job_id, attempt=attempt)
        return
    fail_at(TuningPoint.CLAIMED)
    if claim.failures >= runtime.settings.max_training_failures:
        # It was dispatched before anybody gave it up; running it would only cost another process.
        _give_back(runtime, claim, HmiError("failed too often"), blame=False)
        return
    folder = work_folder(runtime.settings.resolved_cache_dir, job_id, attempt)
    try:
        with runtime.leases.training(JobMessage(job_id, attempt)) as lease:
            _run_claimed(runtime, claim, lease, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_claimed(runtime: Runtime, claim: ClaimedTraining, lease: Lease, folder: Path) -> None:
    log = _log.bind(job=claim.job_id, attempt=claim.attempt)
    try:
        with runtime.database.session(read_only=True) as session:
            running = trainings.leased(session)
        forget_folders(runtime.settings.resolved_cache_dir, running)
        order = fetch(runtime, claim, folder)
        watch = TrainingWatch(runtime, claim, lease, folder / CHECKPOINT)
        _train(runtime, order, watch)
        fail_at(TuningPoint.TRAINED)
        model = publish(runtime, claim, folder, watch)
        fail_at(TuningPoint.FINISHED)
        log.info("training_finished", model=model.name, waited_seconds=round(watch.waited_seconds, 3))
    except LeaseLost as error:
        log.warning("training_lost", reason=error.message)
    except _INNOCENT as error:
        _give_back(runtime, claim, error, blame=False)
    except _FINAL as error:
        _fail(runtime, claim, error)
    except BaseException as error:  # noqa: BLE001
        # SystemExit and MemoryError too: let through, they would cost the pool this thread for ever.
        _give_back(runtime, claim, error, blame=True)


def _train(runtime: Runtime, order: Order, watch: TrainingWatch) -> None:
    """Returns when the training process is done. Raises what `watch` does, and what the training said that it failed
    of; `HmiError` where it fell silent or died."""
    silence = runtime.settings.training_silence_seconds
    try:
        with TrainingProcess(order) as process:
            while True:
                try:
                    said = process.hear(_POLL_SECONDS)
                finally:
                    watch.check()  # whoever ended the worker may have ended the process too, which is no fault of its
                if isinstance(said, Step):
                    watch.step(said)
                    process.go_on()
                elif isinstance(said, Failed):
                    raise said.error()
                elif said is not None:
                    return
                elif process.silent_seconds > silence:
                    process.kill()
                    raise HmiError(f"the training process said nothing for {silence:g} seconds", code="trainer_silent")
    except LeaseLost:
        raise
    except BaseException:
        watch.copy_checkpoint()  # the last one that the process wrote, which it does when it is stopped
        raise


def _give_back(runtime: Runtime, claim: ClaimedTraining, error: BaseException, *, blame: bool) -> None:
    reason = describe(error)
    _log.warning("training_given_back", job=claim.job_id, attempt=claim.attempt, reason=reason, blame=blame)
    wait = runtime.settings.training_retry_seconds if isinstance(error, Transient | StorageFull) else 0.0
    try:
        with runtime.database.session() as session:
            trainings.release(
                session, claim.job_id, claim.attempt, reason=reason, count_failure=blame, wait_seconds=wait
            )
            trainings.fail_exhausted(session, runtime.settings.max_training_failures)
    except Exception as failure:  # noqa: BLE001 - the lease runs out, and `reconcile` does the same
        _log.error("training_left_to_its_lease", job=claim.job_id, reason=describe(failure))


def _fail(runtime: Runtime, claim: ClaimedTraining, error: HmiError) -> None:
    _log.warning("training_failed", job=claim.job_id, attempt=claim.attempt, reason=error.code)
    try:
        with runtime.database.session() as session:
            training_results.fail(session, claim, error)
    except Exception as failure:  # noqa: BLE001 - as above
        _log.error("training_left_to_its_lease", job=claim.job_id, reason=describe(failure))
