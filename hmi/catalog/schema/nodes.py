"""Worker processes, and the guard of periodic tasks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from hmi.catalog.schema.base import Base


class WorkerNode(Base):
    """A worker process's last report: liveness and the adapters it has loaded."""

    __tablename__ = "worker_nodes"
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    device: Mapped[str] = mapped_column(String(64))
    pid: Mapped[int]
    stats: Mapped[dict[str, Any]]
    started_at: Mapped[float]
    seen_at: Mapped[float]


class ScheduleTick(Base):
    """One row for each periodic run, so that two schedulers cannot both start it."""

    __tablename__ = "schedule_ticks"
    task: Mapped[str] = mapped_column(String(64), primary_key=True)
    tick: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    created_at: Mapped[float]
