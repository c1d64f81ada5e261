"""The Celery application of worker, beat and Flower."""

from __future__ import annotations

from celery import Celery

from hmi.jobs import make_client
from hmi.settings import Settings
from worker.schedule import beat_schedule

__all__ = ["make_celery"]


def make_celery(settings: Settings) -> Celery:
    """The common client (`hmi.jobs.messages`) with what a consumer and a scheduler need besides.

    It has no tasks yet: a worker registers them for its own runtime (`worker.tasks`), beat and Flower
    send and show names alone.
    """
    app = make_client(settings)
    app.conf.update(
        # One process for one device: threads share the engine. This pool ignores time limits and never
        # replaces a thread that died, so deadlines and a catch of everything are ours (worker.tasks).
        worker_pool="threads",
        worker_concurrency=settings.worker_threads,
        # With late acknowledgement this holds exactly one message for each thread, and leaves the rest
        # to other devices.
        worker_prefetch_multiplier=1,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,
        # Leases, not the broker's connection, say whose a shard is; a thread cannot be cancelled anyway.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        beat_schedule=beat_schedule(settings),
    )
    return app
