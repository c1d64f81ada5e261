"""Names of queues and tasks, and the Celery client of the API and the workers.

A message carries ids, never text or keys, and is only a hint: the catalog records what has to run, and the periodic
`dispatch` and `reconcile` find it there when a message is lost.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import OperationalError

from hmi.errors import Transient
from hmi.settings import Settings

KEY_PREFIX = "hmi:"  # of every key in Redis, so that the server can be shared


class QueueName(StrEnum):
    SHARDS = "hmi.shards"
    CONTROL = "hmi.control"
    TRAINING = "hmi.training"


class TaskName(StrEnum):
    """Each task's arguments are given by position."""

    RUN_SHARD = "hmi.run_shard"  # (shard id, attempt)
    TRAIN = "hmi.train"  # (fine-tuning job's id, attempt)
    DISPATCH = "hmi.dispatch"  # ()
    RECONCILE = "hmi.reconcile"  # ()
    REBUILD_TREES = "hmi.rebuild_trees"  # (base name | None for all)

    @property
    def queue(self) -> QueueName:
        return _QUEUES.get(self, QueueName.CONTROL)


_QUEUES = {TaskName.RUN_SHARD: QueueName.SHARDS, TaskName.TRAIN: QueueName.TRAINING}


def make_client(settings: Settings, *, socket_timeout_seconds: float = 30) -> Celery:
    """A Celery application that can send every task, without their code.

    The worker builds its application from this one: all applications on one broker must share the key prefix and the
    visibility timeout, of which the shortest wins.

    A broker that does not answer holds a caller for up to `socket_timeout_seconds`; a worker's blocking reads need the
    default.
    """
    client = Celery("hmi", broker=settings.broker_url.get_secret_value(), set_as_current=False)
    client.conf.update(
        result_backend=None,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        event_serializer="json",
        task_queues=[Queue(name.value) for name in QueueName],  # type: ignore[no-untyped-call]
        task_default_queue=QueueName.CONTROL.value,
        task_create_missing_queues=False,
        task_routes={name.value: {"queue": name.queue.value} for name in TaskName},
        task_send_sent_event=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": settings.visibility_timeout_seconds,
            "socket_timeout": socket_timeout_seconds,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "global_keyprefix": KEY_PREFIX,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            # Of a connection that a send opens: two tries, since a periodic task repeats every send.
            "max_retries": 2,
            "interval_start": 0.1,
            "interval_step": 0.1,
        },
    )
    return client


def send(client: Celery, task: TaskName, *args: str | int | None) -> str:
    """Publish one message and return its task id. Raises `Transient` where the broker does not take it.

    A failed send may have been delivered, so every task must be safe to run twice.
    """
    try:
        sent = client.send_task(task.value, args=list(args), queue=task.queue.value, retry=False)
    except (OperationalError, OSError) as error:
        raise Transient(f"the message broker did not take {task.value}", code="broker_unavailable") from error
    return str(sent.id)


def ping(client: Celery) -> None:
    """Raises `Transient` where the broker cannot be reached."""
    options: dict[str, Any] = {"max_retries": 1, "interval_start": 0, "timeout": 5}
    try:
        with client.connection_for_write() as connection:
            connection.ensure_connection(**options)
    except (OperationalError, OSError) as error:
        raise Transient("the message broker cannot be reached", code="broker_unavailable") from error
