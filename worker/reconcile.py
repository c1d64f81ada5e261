"""Repairing the record after a crash, a lost message or an emptied broker. Safe to run at any time, on any worker."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from hmi.catalog import OPEN_BATCH, Batch, files, finalizing, trainings
from worker.lifecycle import log_errors
from worker.paths import SHARDS, TRAININGS
from worker.runtime import Runtime
from worker.shards import ShardRunner, finalize_if_last, split_exhausted
from worker.trees import collect_garbage, send_requested
from worker.tuning import TrainingRunner

_log = structlog.get_logger(__name__)


def reconcile(runtime: Runtime) -> None:
    """Run every step once; one that fails does not hold up the others, and the next call repeats it."""
    shard_runner, training_runner = ShardRunner(runtime), TrainingRunner(runtime)
    steps: dict[str, Callable[[], object]] = {
        "recover_shards": shard_runner.recover,
        "split_shards": lambda: split_exhausted(runtime),
        "finalize_batches": lambda: _finalize(runtime),
        "dispatch_shards": shard_runner.dispatch,
        "recover_trainings": training_runner.recover,
        "dispatch_trainings": training_runner.dispatch,
        "delete_shard_folders": lambda: _delete_folders(runtime, SHARDS, _open_batches),
        "delete_training_folders": lambda: _delete_folders(runtime, TRAININGS, trainings.open_jobs),
        "delete_expired_files": lambda: _delete_files(runtime),
        "collect_garbage": lambda: collect_garbage(runtime),
        "send_rebuilds": lambda: send_requested(runtime),
    }
    for name, step in steps.items():
        with log_errors(_log, "reconcile_step_failed", step=name):
            step()


def _finalize(runtime: Runtime) -> None:
    with runtime.database.session(read_only=True) as session:
        waiting = finalizing.finalizable(session)
    for batch_id in waiting:
        finalize_if_last(runtime, batch_id)


def _open_batches(session: Session) -> set[str]:
    return set(session.scalars(select(Batch.id).where(Batch.status.in_(OPEN_BATCH))))


def _delete_folders(runtime: Runtime, parent: str, find_open: Callable[[Session], set[str]]) -> None:
    """Delete the working folders of jobs that have ended: a stale attempt, or a crash after the end, left them."""
    present = set(runtime.storage.names(parent))
    if not present:
        return
    with runtime.database.session(read_only=True) as session:
        still_open = find_open(session)
    for job_id in present - still_open:
        runtime.storage.delete(f"{parent}/{job_id}")


def _delete_files(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        expired = files.delete_expired_files(session)
    for file in expired:
        runtime.storage.delete(file.path)
