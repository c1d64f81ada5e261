"""The tables of fine-tuning jobs: the jobs, and what is said of each."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from hmi.catalog.tables import Base
from hmi.spec import MissPolicy

__all__ = ["EventLevel", "EventType", "TuningEvent", "TuningJob", "TuningState"]

_JSON = JSON().with_variant(JSONB(), "postgresql")


class TuningState(StrEnum):
    """See the lettered diagram in ARCHITECTURE.md."""

    PENDING = "pending"
    QUEUED = "queued"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class EventLevel(StrEnum):
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class EventType(StrEnum):
    MESSAGE = "message"
    METRICS = "metrics"


class TuningJob(Base):
    """A training of a tenant's model, from its files to the model.

    `attempt` grows with every dispatch and is the fence, as a shard's is. `failures` counts the attempts in a row that
    ended by the job's own fault, or with their worker, before a checkpoint got further than the last one.

    `base` and `domain` are the names when the job was made; the ids are null once what they named is gone. `request` is
    what was asked for, `config` what is done. `cost` is the tokens of all epochs, for quota and fair order.
    """

    __tablename__ = "fine_tuning_jobs"
    __table_args__ = (
        Index("ix_fine_tuning_jobs_tenant_id_created_at_id", "tenant_id", "created_at", "id"),
        UniqueConstraint("tenant_id", "idempotency_key"),
        CheckConstraint("state <> 'succeeded' OR fine_tuned_model IS NOT NULL", name="success_has_a_model"),
    )
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    model: Mapped[str] = mapped_column(String(130))  # as asked for: a base model, or a model of the tenant's
    base: Mapped[str] = mapped_column(String(64))
    base_id: Mapped[str | None] = mapped_column(ForeignKey("base_models.id", ondelete="SET NULL"), index=True)
    domain: Mapped[str] = mapped_column(String(64))
    domain_id: Mapped[str | None] = mapped_column(ForeignKey("domains.id", ondelete="SET NULL"), index=True)
    miss_policy: Mapped[MissPolicy]
    target: Mapped[str] = mapped_column(String(64))  # the name that the model gets, without the tenant's
    training_file_id: Mapped[str] = mapped_column(String(64))
    training_path: Mapped[str] = mapped_column(String(255))
    validation_file_id: Mapped[str | None] = mapped_column(String(64))
    validation_path: Mapped[str | None] = mapped_column(String(255))
    request: Mapped[dict[str, Any]]
    config: Mapped[dict[str, Any]]
    examples: Mapped[int]
    cost: Mapped[int] = mapped_column(BigInteger)
    attributes: Mapped[dict[str, Any]]  # the caller's `metadata`, kept as it came
    idempotency_key: Mapped[str | None] = mapped_column(String(128))
    state: Mapped[TuningState] = mapped_column(default=TuningState.PENDING, index=True)
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    last_failure: Mapped[str | None] = mapped_column(Text)
    not_before: Mapped[float | None]  # it waits until then for what failed to be there again
    queued_at: Mapped[float | None]
    owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[float | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]  # the first time
    finished_at: Mapped[float | None]
    progress: Mapped[dict[str, Any] | None] = mapped_column(_JSON)
    estimated_finish: Mapped[float | None]
    epochs_said: Mapped[int] = mapped_column(default=0)  # of how many epochs the events have the metrics
    checkpoint_path: Mapped[str | None] = mapped_column(String(255))
    checkpoint_step: Mapped[int] = mapped_column(default=0)
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    fine_tuned_model: Mapped[str | None] = mapped_column(String(130))
    result_file_id: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[dict[str, Any] | None] = mapped_column(_JSON)  # {"code", "message", "param"}


class TuningEvent(Base):
    """Something that happened to a job; `number` counts them from 1."""

    __tablename__ = "fine_tuning_events"
    job_id: Mapped[str] = mapped_column(ForeignKey("fine_tuning_jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    level: Mapped[EventLevel]
    type: Mapped[EventType]
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any] | None] = mapped_column(_JSON)
    created_at: Mapped[float]
