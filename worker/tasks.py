"""The tasks. Each is a door: it names what to do and lets nothing out.

An exception that leaves a task helps nobody, since what failed is written down in the catalog. A
`SystemExit` or `MemoryError` that leaves one costs the pool its thread for good, with the message
never acknowledged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import structlog
from celery import Celery

from hmi.jobs import TaskName
from worker import reconcile
from worker.lifecycle import describe
from worker.runtime import Runtime
from worker.schedule import claim_rebuild
from worker.shards import dispatch
from worker.shards import shard as shards
from worker.trees import rebuild, rebuild_all
from worker.tuning import dispatch_trainings
from worker.tuning import run as tuning

__all__ = ["register_tasks"]

_log = structlog.get_logger(__name__)


@contextlib.contextmanager
def _contained(task: TaskName) -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - see the module
        _log.error("task_failed", task=task.value, reason=describe(error))


def register_tasks(app: Celery, runtime: Runtime) -> None:
    """Bind every task to this process's runtime."""

    @app.task(name=TaskName.RUN_SHARD.value)  # type: ignore[untyped-decorator]
    def run_shard(shard_id: str, attempt: int) -> None:
        with _contained(TaskName.RUN_SHARD):
            shards.run_shard(runtime, shard_id, attempt)

    @app.task(name=TaskName.TRAIN.value)  # type: ignore[untyped-decorator]
    def train(job_id: str, attempt: int) -> None:
        with _contained(TaskName.TRAIN):
            tuning.run_job(runtime, job_id, attempt)

    @app.task(name=TaskName.DISPATCH.value)  # type: ignore[untyped-decorator]
    def dispatch_waiting() -> None:
        with _contained(TaskName.DISPATCH):
            dispatch(runtime)
            dispatch_trainings(runtime)

    @app.task(name=TaskName.RECONCILE.value)  # type: ignore[untyped-decorator]
    def reconcile_record() -> None:
        with _contained(TaskName.RECONCILE):
            reconcile.reconcile(runtime)

    @app.task(name=TaskName.FLUSH_FREQUENCIES.value)  # type: ignore[untyped-decorator]
    def flush_frequencies() -> None:
        """Flushes the process that takes it: counts live in each worker's memory, and each has a timer."""
        with _contained(TaskName.FLUSH_FREQUENCIES):
            runtime.flusher.flush()

    @app.task(name=TaskName.REBUILD_TREES.value)  # type: ignore[untyped-decorator]
    def rebuild_trees(base: str | None = None) -> None:
        """One base model's tree, by name, if a rebuild is requested; or all trees, if that is due."""
        with _contained(TaskName.REBUILD_TREES):
            if base is not None:
                rebuild(runtime, base, only_requested=True)
            elif claim_rebuild(runtime.database, runtime.settings.rebuild_seconds):
                rebuild_all(runtime)
