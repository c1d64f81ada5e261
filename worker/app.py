"""The Celery application of worker, beat and Flower."""

from __future__ import annotations

from celery import Celery
from celery.schedules import schedule

from hmi.jobs import TaskName, make_client
from hmi.settings import Settings

# Beat sends rebuilds much more often than they are due, since a beat that is restarted often never reaches an interval
# of hours; `worker.trees.claim_period` lets one through in each period.
_REBUILD_SECONDS = 300.0


def make_celery(settings: Settings) -> Celery:
    """Return the common client (`hmi.jobs.make_client`) with what a consumer and a scheduler need besides.

    It has no tasks yet: a worker registers its own (`worker.process`), beat and Flower use names alone.
    """
    app = make_client(settings)
    seconds = {
        TaskName.DISPATCH: settings.dispatch_seconds,
        TaskName.RECONCILE: settings.reconcile_seconds,
        TaskName.REBUILD_TREES: min(settings.rebuild_seconds, _REBUILD_SECONDS),
    }
    app.conf.update(
        # One process for one device: threads share the engine. This pool ignores time limits and never replaces a
        # thread that died, so deadlines (worker.shards) and catching every exception (worker.process) are ours.
        worker_pool="threads",
        worker_concurrency=settings.worker_threads,
        # With late acknowledgement this reserves one message for each thread, and leaves the rest to other devices.
        worker_prefetch_multiplier=1,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,
        # Leases decide who owns a shard, not the broker's connection; a thread cannot be cancelled anyway.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # Losing all of these messages for a while costs time, not work.
        beat_schedule={
            task.value: {"task": task.value, "schedule": schedule(every)} for task, every in seconds.items()
        },
    )
    return app
