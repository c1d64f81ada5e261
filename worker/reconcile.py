"""Putting right what a crash, a lost message or an emptied broker left behind. Safe to run at any time, anywhere."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy import select

from hmi.catalog import OPEN_BATCH, Batch, batches, files, finalizing, shards
from worker.lifecycle import describe
from worker.runtime import Runtime
from worker.shards import SHARDS, dispatch, finalize_if_last, isolate_exhausted, shard_folder
from worker.trees import send_requested, sweep_builds
from worker.tuning import dispatch_trainings, put_back_trainings, sweep_trainings

__all__ = ["reconcile"]

_log = structlog.get_logger(__name__)


def reconcile(runtime: Runtime) -> None:
    """Every step once; one that fails does not hold up the others, and the next round tries it again."""
    steps: tuple[Callable[[Runtime], object], ...] = (
        _put_back,
        isolate_exhausted,
        _finalize,
        dispatch,
        put_back_trainings,
        dispatch_trainings,
        _sweep_shards,
        sweep_trainings,
        _forget_files,
        sweep_builds,
        send_requested,
    )
    for step in steps:
        try:
            step(runtime)
        except Exception as error:  # noqa: BLE001 - see above
            _log.error("reconcile_step_failed", step=step.__name__, reason=describe(error))


def _put_back(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        lapsed = shards.expire_leases(session)
        lost = shards.requeue_lost(session, runtime.settings.queued_timeout_seconds)
        dropped = batches.expire_batches(session)
    if lapsed or lost or dropped:
        _log.warning("shards_put_back", leases_over=lapsed, messages_lost=lost, dropped=dropped)


def _finalize(runtime: Runtime) -> None:
    with runtime.database.session(read_only=True) as session:
        waiting = finalizing.finalizable(session)
    for batch_id in waiting:
        finalize_if_last(runtime, batch_id)


def _sweep_shards(runtime: Runtime) -> None:
    """Remove the shard folders of batches that have ended: a late attempt, or a crash after the end, left them."""
    present = set(runtime.storage.names(SHARDS))
    if not present:
        return
    with runtime.database.session(read_only=True) as session:
        working = set(session.scalars(select(Batch.id).where(Batch.status.in_(OPEN_BATCH))))
    for batch_id in present - working:
        runtime.storage.delete(shard_folder(batch_id))


def _forget_files(runtime: Runtime) -> None:
    with runtime.database.session() as session:
        expired = files.delete_expired_files(session)
    for file in expired:
        runtime.storage.delete(file.path)
