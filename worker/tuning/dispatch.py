"""Putting fine-tuning jobs on the queue, as `worker.shards.dispatching` does with shards."""

from __future__ import annotations

import structlog

from hmi.catalog import trainings
from hmi.errors import Transient
from hmi.jobs import TaskName, send
from worker.runtime import Runtime

__all__ = ["dispatch_trainings"]

_log = structlog.get_logger(__name__)


def dispatch_trainings(runtime: Runtime) -> int:
    """Queue as many waiting jobs as may be in flight and return how many were sent; what the broker does not take comes
    back after `queued_timeout_seconds`."""
    with runtime.database.session() as session:
        messages = trainings.dispatch(session, in_flight=runtime.settings.trainings_in_flight)
    for sent, message in enumerate(messages):
        try:
            send(runtime.client, TaskName.TRAIN, message.job_id, message.attempt)
        except Transient as error:
            _log.warning("broker_refused", unsent=len(messages) - sent, reason=error.message)
            return sent
    return len(messages)
