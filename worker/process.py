"""One worker process from start to end, and its Celery tasks."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from celery import Celery, signals

from hmi.catalog import Database, is_schema_current
from hmi.errors import HmiError, Transient
from hmi.jobs import QueueName, TaskName
from hmi.settings import Settings
from worker.app import make_celery
from worker.lifecycle import describe
from worker.reconcile import reconcile
from worker.runtime import EngineFactory, Runtime
from worker.shards import ShardRunner
from worker.trees import claim_period, rebuild, rebuild_all
from worker.tuning import TrainingRunner

_log = structlog.get_logger(__name__)


def run_worker(
    settings: Settings,
    make_engine: EngineFactory,
    *,
    name: Callable[[str], str],
    queues: Sequence[str] = tuple(QueueName),
) -> int:
    """Serve until a signal and return the process's exit status.

    On SIGTERM and SIGINT it takes no new work, finishes or releases what it holds, flushes its counts and returns 0. A
    process that cannot start writes one line to stderr and returns 1. `name` is `Runtime`'s.
    """
    app = make_celery(settings)
    try:
        database = Database(settings.resolved_database_url)
        if not is_schema_current(database):
            raise Transient("the catalog's schema is not this version's; run `hmi db upgrade`")
        runtime = Runtime(settings, app, database, make_engine, name)
        if set(queues) != {QueueName.TRAINING.value}:
            runtime.load_bases()  # a training process loads its own
    except Exception as error:  # noqa: BLE001 - a supervisor reads one line, whatever the error
        message = error.message if isinstance(error, HmiError) else f"{error} ({describe(error)})"
        sys.stderr.write(f"hmi worker: cannot start: {message}\n")
        return 1
    _register_tasks(app, runtime)
    runtime.start()
    engine = runtime.engine.stats()
    log = _log.bind(node=runtime.node, device=engine.device, dtype=engine.dtype)
    log.info("worker_starting", device_threads=engine.device_threads, threads=settings.worker_threads)
    try:
        return _serve(app, runtime, queues)
    finally:
        runtime.stop()
        _log.info("worker_stopped", node=runtime.node)


def _register_tasks(app: Celery, runtime: Runtime) -> None:
    """Bind every task to this process's runtime. Each calls one function and lets no exception out.

    A failure is recorded in the catalog, so an exception that leaves a task serves nothing. A `SystemExit` or
    `MemoryError` that leaves one costs the pool its thread for good, with the message never acknowledged.
    """
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
        except BaseException as error:  # noqa: BLE001 - see `_register_tasks`
            _log.error("task_failed", task=name.value, reason=describe(error))

    return run


def _serve(app: Celery, runtime: Runtime, queues: Sequence[str]) -> int:
    def stop(**_: Any) -> None:
        runtime.stopping.set()

    def treat_interrupt_as_term(**_: Any) -> None:
        # Celery's second Ctrl-C is a cold shutdown, which needs a pool whose workers can be killed: threads cannot.
        signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))

    signals.worker_shutting_down.connect(stop)
    signals.worker_ready.connect(treat_interrupt_as_term)
    try:
        worker = app.Worker(
            hostname=runtime.node,
            queues=list(queues),
            task_events=True,
            without_gossip=True,
            without_mingle=True,
            quiet=True,
            loglevel=runtime.settings.log_level.upper(),
        )
        worker.start()
    finally:
        signals.worker_shutting_down.disconnect(stop)
        signals.worker_ready.disconnect(treat_interrupt_as_term)
    return int(worker.exitcode or 0)
