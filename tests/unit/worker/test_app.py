from __future__ import annotations

from hmi.jobs import QueueName, TaskName
from hmi.settings import Settings
from worker.app import make_celery


def settings(**values: object) -> Settings:
    return Settings.model_validate({"broker_url": "redis://nowhere.invalid/0", **values})


def test_one_message_is_reserved_for_each_thread() -> None:
    conf = make_celery(settings(worker_threads=3)).conf
    assert (conf.worker_concurrency, conf.worker_prefetch_multiplier) == (3, 1)
    assert conf.worker_pool == "threads"
    assert conf.task_acks_late
    assert conf.result_backend is None
    assert conf.accept_content == ["json"]
    assert conf.worker_send_task_events
    assert {queue.name for queue in conf.task_queues} == set(QueueName)
    assert not conf.task_create_missing_queues


def test_beat_sends_the_periodic_tasks() -> None:
    entries = make_celery(settings(dispatch_seconds=3, reconcile_seconds=7)).conf.beat_schedule
    assert {entry["task"] for entry in entries.values()} == {
        TaskName.DISPATCH,
        TaskName.RECONCILE,
        TaskName.REBUILD_TREES,
    }
    assert entries[TaskName.DISPATCH]["schedule"].seconds == 3
    assert entries[TaskName.RECONCILE]["schedule"].seconds == 7
    # A beat that is restarted every hour still gets a rebuild every six: it asks often, a guard answers.
    assert entries[TaskName.REBUILD_TREES]["schedule"].seconds <= 300
