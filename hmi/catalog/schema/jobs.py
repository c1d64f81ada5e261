"""Queued work: batches with their shards, fine-tuning jobs with their events. Workers, and their periodic tasks."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from hmi.catalog.schema.base import JSON_TYPE, Base
from hmi.spec import MissPolicy


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


OPEN_JOB = (JobState.PENDING, JobState.QUEUED, JobState.LEASED)


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


class BatchStatus(StrEnum):
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


OPEN_BATCH = (BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING)


class Batch(Base):
    """Its line counts are sums over its shards (`catalog.batches.BatchView`).

    `finalizing_until` is the lease of the process that assembles the result files.
    """

    __tablename__ = "batches"
    __table_args__ = (
        Index("ix_batches_tenant_id_created_at_id", "tenant_id", "created_at", "id"),
        UniqueConstraint("tenant_id", "idempotency_key"),
    )
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    endpoint: Mapped[str] = mapped_column(String(64))
    completion_window: Mapped[str] = mapped_column(String(16))
    input_file_id: Mapped[str] = mapped_column(String(64))
    input_path: Mapped[str] = mapped_column(String(255))
    output_file_id: Mapped[str | None] = mapped_column(String(64))
    error_file_id: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[BatchStatus] = mapped_column(index=True)
    total_lines: Mapped[int] = mapped_column(default=0)
    attributes: Mapped[dict[str, Any]]  # the caller's `metadata`, unchanged
    errors: Mapped[list[Any]]  # validation: [{"code", "line", "message", "param"}]
    idempotency_key: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[float]
    expires_at: Mapped[float]
    in_progress_at: Mapped[float | None]
    finalizing_at: Mapped[float | None]
    finalizing_until: Mapped[float | None]
    completed_at: Mapped[float | None]
    failed_at: Mapped[float | None]
    expired_at: Mapped[float | None]
    cancelling_at: Mapped[float | None]
    cancelled_at: Mapped[float | None]


class Shard(QueuedJob, Base):
    """The job of running consecutive lines of a batch: bytes `offset`..`offset + length` of the input file."""

    __tablename__ = "shards"
    __table_args__ = (
        UniqueConstraint("batch_id", "first_line", "lines"),
        Index("ix_shards_state_tenant_id", "state", "tenant_id"),
        CheckConstraint("lines > 0", name="lines_positive"),
        CheckConstraint("state <> 'done' OR completed + failed = lines", name="every_line_counted"),
    )
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"))
    first_line: Mapped[int]  # 0-based, within the batch
    lines: Mapped[int]
    offset: Mapped[int] = mapped_column(BigInteger)
    length: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[int] = mapped_column(BigInteger, default=1, server_default=text("1"))
    output_path: Mapped[str | None] = mapped_column(String(255))
    error_path: Mapped[str | None] = mapped_column(String(255))
    completed: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    input_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    output_tokens: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))


class EventLevel(StrEnum):
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class EventType(StrEnum):
    MESSAGE = "message"
    METRICS = "metrics"


class TuningJob(QueuedJob, Base):
    """The job of training a tenant's model.

    `failures` counts the failed attempts since the last checkpoint that made progress. `base` and `domain` are the
    names at creation; the ids become null when the row is deleted. `request` identifies a repeated request, `config`
    is for the worker. `cost` is the number of tokens of all epochs.
    """

    __tablename__ = "fine_tuning_jobs"
    __table_args__ = (
        Index("ix_fine_tuning_jobs_tenant_id_created_at_id", "tenant_id", "created_at", "id"),
        Index("ix_fine_tuning_jobs_state", "state"),
        UniqueConstraint("tenant_id", "idempotency_key"),
        CheckConstraint("state <> 'succeeded' OR fine_tuned_model IS NOT NULL", name="success_has_a_model"),
    )
    model: Mapped[str] = mapped_column(String(130))  # as requested: a base model, or a model of the tenant
    base: Mapped[str] = mapped_column(String(64))
    base_id: Mapped[str | None] = mapped_column(ForeignKey("base_models.id", ondelete="SET NULL"), index=True)
    domain: Mapped[str] = mapped_column(String(64))
    domain_id: Mapped[str | None] = mapped_column(ForeignKey("domains.id", ondelete="SET NULL"), index=True)
    miss_policy: Mapped[MissPolicy]
    target: Mapped[str] = mapped_column(String(64))  # the new model's name, without the tenant's
    training_file_id: Mapped[str] = mapped_column(String(64))
    training_path: Mapped[str] = mapped_column(String(255))
    validation_file_id: Mapped[str | None] = mapped_column(String(64))
    validation_path: Mapped[str | None] = mapped_column(String(255))
    request: Mapped[dict[str, Any]]
    config: Mapped[dict[str, Any]]
    examples: Mapped[int]
    attributes: Mapped[dict[str, Any]]  # the caller's `metadata`, unchanged
    idempotency_key: Mapped[str | None] = mapped_column(String(128))
    not_before: Mapped[float | None]  # no dispatch before this time
    created_at: Mapped[float]
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON_TYPE)
    estimated_finish: Mapped[float | None]
    epochs_recorded: Mapped[int] = mapped_column("epochs_said", default=0)  # epochs whose metrics are events
    checkpoint_path: Mapped[str | None] = mapped_column(String(255))
    checkpoint_step: Mapped[int] = mapped_column(default=0)
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    fine_tuned_model: Mapped[str | None] = mapped_column(String(130))
    result_file_id: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON_TYPE)  # {"code", "message", "param"}


class TuningEvent(Base):
    """An event of a job; `number` counts them from 1."""

    __tablename__ = "fine_tuning_events"
    job_id: Mapped[str] = mapped_column(ForeignKey("fine_tuning_jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    level: Mapped[EventLevel]
    type: Mapped[EventType]
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any] | None] = mapped_column(JSON_TYPE)
    created_at: Mapped[float]


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
