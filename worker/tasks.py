"""The Celery tasks. Each calls one function and lets no exception out.

A failure is recorded in the catalog, so an exception that leaves a task serves nothing. A `SystemExit` or `MemoryError`
that leaves one costs the pool its thread for good, with the message never acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery

from hmi.jobs import TaskName
from worker.lifecycle import describe
from worker.reconcile import reconcile
from worker.runtime import Runtime
from worker.shards import ShardRunner
from worker.trees import claim_period, rebuild, rebuild_all
from worker.tuning import TrainingRunner

_log = structlog.get_logger(__name__)


def register_tasks(app: Celery, runtime: Runtime) -> None:
    """Bind every task to this process's runtime."""
    shards, trainings = ShardRunner(runtime), TrainingRunner(runtime)

    def dispatch() -> None:
        shards.dispatch()
        trainings.dispatch()

    def rebuild_trees(base: str | None = None) -> None:
        """Rebuild one base model's tree, by name, if that is requested; or all trees, if that is due."""
        if base is not None:
            rebuild(runtime, base, only_requested=True)
        elif claim_period(runtime.database, runtime.settings.rebuild_seconds):
            rebuild_all(runtime)

    tasks: dict[TaskName, Callable[..., object]] = {
        TaskName.RUN_SHARD: shards.run,
        TaskName.TRAIN: trainings.run,
        TaskName.DISPATCH: dispatch,
        TaskName.RECONCILE: lambda: reconcile(runtime),
        TaskName.REBUILD_TREES: rebuild_trees,
    }
    for name, action in tasks.items():
        app.task(_contained(name, action), name=name.value)


def _contained(name: TaskName, action: Callable[..., object]) -> Callable[..., None]:
    def run(*args: Any) -> None:
        try:
            action(*args)
        except BaseException as error:  # noqa: BLE001 - see the module
            _log.error("task_failed", task=name.value, reason=describe(error))

    return run
