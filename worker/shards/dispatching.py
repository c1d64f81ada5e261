"""Putting shards on the queue: the catalog decides which, in fair order, and the broker is told after the commit."""

from __future__ import annotations

import structlog

from hmi.catalog import shards
from hmi.errors import Transient
from hmi.jobs import TaskName, send
from worker.runtime import Runtime

__all__ = ["dispatch"]

_log = structlog.get_logger(__name__)


def dispatch(runtime: Runtime) -> int:
    """Queue as many pending shards as may be in flight and return how many were sent.

    A message that the broker does not take is as good as lost: its shard comes back after
    `queued_timeout_seconds`.
    """
    with runtime.database.session() as session:
        messages = shards.dispatch(session, in_flight=runtime.settings.shards_in_flight)
    for sent, message in enumerate(messages):
        try:
            send(runtime.client, TaskName.RUN_SHARD, message.job_id, message.attempt)
        except Transient as error:
            _log.warning("broker_refused", unsent=len(messages) - sent, reason=error.message)
            return sent
    return len(messages)
