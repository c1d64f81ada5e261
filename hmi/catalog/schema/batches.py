"""Files, batches and their shards."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from hmi.catalog.schema.base import Base
from hmi.catalog.schema.jobs import QueuedJob


class BatchStatus(StrEnum):
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


OPEN_BATCH = (BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING)


class File(Base):
    """An uploaded or produced file; its bytes are at `path` in the storage."""

    __tablename__ = "files"
    __table_args__ = (Index("ix_files_tenant_id_created_at_id", "tenant_id", "created_at", "id"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    purpose: Mapped[str] = mapped_column(String(32))
    filename: Mapped[str] = mapped_column(String(255))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[float]
    expires_at: Mapped[float | None]


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
