"""What beat sends, and the guard that lets one rebuild through per period however many beats run."""

from __future__ import annotations

from typing import Any

from celery.schedules import schedule

from hmi.catalog import Database, database_time, nodes
from hmi.jobs import TaskName
from hmi.settings import Settings

__all__ = ["beat_schedule", "claim_rebuild"]

# A beat that is restarted often never reaches an interval of hours, so it asks about rebuilds much
# more often than they are due; `claim_rebuild` answers.
_ASK_SECONDS = 300.0


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Entries for Celery's stock beat. Losing all of them for a while costs time, not work."""
    seconds = {
        TaskName.DISPATCH: settings.dispatch_seconds,
        TaskName.RECONCILE: settings.reconcile_seconds,
        TaskName.REBUILD_TREES: min(settings.rebuild_seconds, _ASK_SECONDS),
    }
    return {task.value: {"task": task.value, "schedule": schedule(every)} for task, every in seconds.items()}


def claim_rebuild(database: Database, rebuild_seconds: float) -> bool:
    """True for exactly one caller in each period of the database's clock."""
    with database.session() as session:
        tick = int(database_time(session) // rebuild_seconds)
        return nodes.claim_tick(session, TaskName.REBUILD_TREES.value, tick)
