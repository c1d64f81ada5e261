"""Fine-tuning jobs and their events."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from hmi.catalog.schema.base import JSON_TYPE, Base
from hmi.catalog.schema.jobs import QueuedJob
from hmi.spec import MissPolicy


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
