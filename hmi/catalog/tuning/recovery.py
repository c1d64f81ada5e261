"""Sweeps that put lost fine-tuning jobs back, and end those that fail again and again."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, func, literal, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import change, now
from hmi.catalog.tuning.events import add_event
from hmi.catalog.tuning_states import OPEN
from hmi.catalog.tuning_tables import EventLevel, TuningJob, TuningState

__all__ = ["INTERRUPTED", "expire_leases", "fail_exhausted", "leased", "open_jobs", "requeue_lost"]

INTERRUPTED = "The training was interrupted; it goes on from its last checkpoint"


def expire_leases(session: Session) -> int:
    """Put back every leased job whose lease ran out, and blame it; gives their number."""
    reason = literal("the lease of ") + func.coalesce(TuningJob.owner, "its worker") + literal(" ran out")
    lapsed = and_(TuningJob.state == TuningState.LEASED, TuningJob.lease_until < now())
    values = {"failures": TuningJob.failures + 1, "last_failure": reason, "lease_until": None}
    found = _change(session, lapsed, {"state": TuningState.PENDING, "estimated_finish": None, **values})
    for job_id, tenant_id in found:
        add_event(session, tenant_id, job_id, INTERRUPTED, level=EventLevel.WARN)
    return len(found)


def requeue_lost(session: Session, timeout_seconds: float) -> int:
    """Put back every job whose message nobody took for `timeout_seconds`, without blame; gives their number."""
    lost = and_(TuningJob.state == TuningState.QUEUED, TuningJob.queued_at < now() - timeout_seconds)
    return change(session, update(TuningJob).where(lost).values(state=TuningState.PENDING))


def fail_exhausted(session: Session, max_failures: int) -> int:
    """End the waiting jobs that failed so often in a row without getting any further; gives their number."""
    given_up = and_(TuningJob.state == TuningState.PENDING, TuningJob.failures >= max_failures)
    # What exactly went wrong is for the operator's log: it names processes and files of ours.
    message = f"The training failed {max_failures} times in a row at the same place and was given up"
    error = {"code": "training_crashed", "message": message, "param": None}
    found = _change(session, given_up, {"state": TuningState.FAILED, "finished_at": now(), "error": error})
    for job_id, tenant_id in found:
        add_event(session, tenant_id, job_id, message, level=EventLevel.ERROR)
    return len(found)


def leased(session: Session) -> set[tuple[str, int]]:
    """Id and attempt of the jobs that somebody runs."""
    rows = session.execute(select(TuningJob.id, TuningJob.attempt).where(TuningJob.state == TuningState.LEASED))
    return {(row[0], row[1]) for row in rows}


def open_jobs(session: Session) -> set[str]:
    """Ids of the jobs that have not ended."""
    return set(session.scalars(select(TuningJob.id).where(TuningJob.state.in_(OPEN))))


def _change(session: Session, which: ColumnElement[bool], values: dict[str, Any]) -> list[tuple[str, str]]:
    """Change the jobs' rows and give (id, tenant's id) of each."""
    statement = update(TuningJob).where(which).values(**values).returning(TuningJob.id, TuningJob.tenant_id)
    rows = session.execute(statement, execution_options={"synchronize_session": False})
    return sorted((row[0], row[1]) for row in rows)
