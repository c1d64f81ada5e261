"""Events of fine-tuning jobs, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hmi.catalog.database import Page, now
from hmi.catalog.registry import names
from hmi.catalog.schema import EventLevel, EventType, TuningEvent, new_id
from hmi.errors import InvalidInput


def add_event(
    session: Session,
    tenant_id: str,
    job_id: str,
    message: str,
    *,
    level: EventLevel = EventLevel.INFO,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Add an event, in the transaction that changed the job's row: the lock of that row keeps numbers unique."""
    names.check_json(dict(metrics or {}), param="metrics")
    last = session.scalars(select(func.max(TuningEvent.number)).where(TuningEvent.job_id == job_id)).one()
    session.add(
        TuningEvent(
            job_id=job_id,
            number=(last or 0) + 1,
            id=new_id("ftevent-"),
            tenant_id=tenant_id,
            level=level,
            type=EventType.MESSAGE if metrics is None else EventType.METRICS,
            message=message.replace("\0", "\ufffd"),
            data=None if metrics is None else dict(metrics),
            created_at=now(),
        )
    )
    session.flush()


def list_events(
    session: Session, tenant_id: str, job_id: str, *, after: str | None = None, limit: int = 20
) -> Page[TuningEvent]:
    """Return a page of a job's events, newest first; empty for another tenant's job.

    Raises `InvalidInput` if the job has no event `after`.
    """
    mine = (TuningEvent.tenant_id == tenant_id, TuningEvent.job_id == job_id)
    statement = select(TuningEvent).where(*mine)
    if after is not None:
        number = session.scalars(select(TuningEvent.number).where(*mine, TuningEvent.id == after)).one_or_none()
        if number is None:
            raise InvalidInput(f"there is nothing with the id {after[:80]!r} to list after", param="after")
        statement = statement.where(TuningEvent.number < number)
    rows = list(session.scalars(statement.order_by(TuningEvent.number.desc()).limit(limit + 1)))
    return Page(rows[:limit], has_more=len(rows) > limit)
