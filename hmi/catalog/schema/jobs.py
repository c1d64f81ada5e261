"""The columns and states of queued work; `hmi.catalog.queue` has the state diagram."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column


class JobState(StrEnum):
    """Every job waits, is queued and leased in the same states; the last six are ends."""

    PENDING = "pending"
    QUEUED = "queued"
    LEASED = "leased"
    # Shards
    DONE = "done"
    SPLIT = "split"  # replaced by smaller shards of the same lines
    DROPPED = "dropped"  # its batch was cancelled or expired before it ran
    # Trainings
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING_JOB = (JobState.PENDING, JobState.QUEUED)
OPEN_JOB = (*WAITING_JOB, JobState.LEASED)


class QueuedJob:
    """Columns of every table of jobs.

    `attempt` grows with every dispatch and fences every write of a worker. `failures` counts only the attempts that the
    job itself made fail. `cost` orders tenants fairly.
    """

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    cost: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[JobState] = mapped_column(default=JobState.PENDING)
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    last_failure: Mapped[str | None] = mapped_column(Text)
    queued_at: Mapped[float | None]
    owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[float | None]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
