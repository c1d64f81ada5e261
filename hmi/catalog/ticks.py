"""Guard of periodic tasks: of several schedulers, or of a message delivered twice, one run gets the tick."""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.orm import Session

from hmi.catalog.database import change, insert_or, now
from hmi.catalog.tables import ScheduleTick

__all__ = ["claim_tick"]

_KEPT = 100  # ticks; a message older than that is not run again either


def claim_tick(session: Session, task: str, tick: int) -> bool:
    """True for the first caller with this task and tick (the period's number, time // period)."""
    values = {"task": task, "tick": tick, "created_at": now()}
    if not change(session, insert_or(session, ScheduleTick).values(**values).on_conflict_do_nothing()):
        return False
    change(session, delete(ScheduleTick).where(ScheduleTick.task == task, ScheduleTick.tick < tick - _KEPT))
    return True
