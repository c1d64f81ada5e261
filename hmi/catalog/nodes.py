"""Worker processes: what they report, and which of them does a periodic task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import case, delete, select
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml, insert_or, now
from hmi.catalog.schema import ScheduleTick, WorkerNode

_STORED_TICKS = 100  # a message older than that starts no run either


def report_node(session: Session, name: str, *, device: str, pid: int, stats: Mapping[str, Any]) -> None:
    """Record that a worker is alive, with its statistics; another `pid` is a new start."""
    values = {"name": name, "device": device, "pid": pid, "stats": dict(stats), "started_at": now(), "seen_at": now()}
    insert = insert_or(session, WorkerNode).values(**values)
    same_process = WorkerNode.pid == insert.excluded.pid
    latest = {
        "device": insert.excluded.device,
        "pid": insert.excluded.pid,
        "stats": insert.excluded.stats,
        "started_at": case((same_process, WorkerNode.started_at), else_=insert.excluded.started_at),
        "seen_at": insert.excluded.seen_at,
    }
    execute_dml(session, insert.on_conflict_do_update(index_elements=["name"], set_=latest))


def list_nodes(session: Session, seen_within_seconds: float) -> list[WorkerNode]:
    """Workers that reported within the last `seen_within_seconds`, by name."""
    seen = select(WorkerNode).where(WorkerNode.seen_at > now() - seen_within_seconds).order_by(WorkerNode.name)
    return list(session.scalars(seen))


def claim_tick(session: Session, task: str, tick: int) -> bool:
    """True for the first caller with this task and tick (the period's number, time // period)."""
    values = {"task": task, "tick": tick, "created_at": now()}
    if not execute_dml(session, insert_or(session, ScheduleTick).values(**values).on_conflict_do_nothing()):
        return False
    old = (ScheduleTick.task == task, ScheduleTick.tick < tick - _STORED_TICKS)
    execute_dml(session, delete(ScheduleTick).where(*old))
    return True
