"""Putting right what a crash or a lost message left of fine-tuning jobs."""

from __future__ import annotations

import structlog

from hmi.catalog import trainings
from worker.runtime import Runtime
from worker.tuning.places import CHECKPOINTS, job_folder

__all__ = ["put_back_trainings", "sweep_trainings"]

_log = structlog.get_logger(__name__)


def put_back_trainings(runtime: Runtime) -> None:
    """Jobs whose worker or message was lost wait again; those that failed too often end."""
    with runtime.database.session() as session:
        lapsed = trainings.expire_leases(session)
        lost = trainings.requeue_lost(session, runtime.settings.queued_timeout_seconds)
        failed = trainings.fail_exhausted(session, runtime.settings.max_training_failures)
    if lapsed or lost or failed:
        _log.warning("trainings_put_back", leases_over=lapsed, messages_lost=lost, given_up=failed)


def sweep_trainings(runtime: Runtime) -> None:
    """Remove the checkpoints of jobs that have ended: a late attempt, or a crash after the end, left them."""
    present = set(runtime.storage.names(CHECKPOINTS))
    if not present:
        return
    with runtime.database.session(read_only=True) as session:
        working = trainings.open_jobs(session)
    for job_id in present - working:
        runtime.storage.delete(job_folder(job_id))
