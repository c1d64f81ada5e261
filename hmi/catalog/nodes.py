"""Worker processes and what they last said of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import case, select
from sqlalchemy.orm import Session

from hmi.catalog.database import change, insert_or, now
from hmi.catalog.tables import WorkerNode

__all__ = ["list_nodes", "report_node"]


def report_node(session: Session, name: str, *, device: str, pid: int, stats: Mapping[str, Any]) -> None:
    """Record that a worker lives and where adapters lie in it; another `pid` is a new start."""
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
    change(session, insert.on_conflict_do_update(index_elements=["name"], set_=latest))


def list_nodes(session: Session, seen_within_seconds: float) -> list[WorkerNode]:
    """Workers that reported within so many seconds, by name."""
    return list(
        session.scalars(
            select(WorkerNode)
            .where(WorkerNode.seen_at > now() - seen_within_seconds)
            .order_by(WorkerNode.name)
            .execution_options(populate_existing=True)
        )
    )
