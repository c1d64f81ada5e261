"""The catalog's tables. Times are Unix seconds by the database's own clock.

Ids are a short prefix and 128 random bits in hex (`batch_5f...`), so that none can be guessed.
"""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from hmi.spec import MissPolicy

__all__ = [
    "GENERAL",
    "OPERATOR",
    "AdapterRevision",
    "ApiKey",
    "Base",
    "BaseModel",
    "Batch",
    "BatchStatus",
    "Domain",
    "DomainDelta",
    "File",
    "FrequencyPlace",
    "NgramFrequency",
    "Role",
    "ScheduleTick",
    "Shard",
    "ShardState",
    "Tenant",
    "TenantModel",
    "TreeStatus",
    "TreeUsage",
    "TreeVersion",
    "WorkerNode",
    "new_id",
]

GENERAL = "general"  # the root of all domains
OPERATOR = "operator"  # the tenant that admin keys belong to


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(16)}"


class Role(StrEnum):
    ADMIN = "admin"
    TENANT = "tenant"


class TreeStatus(StrEnum):
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


class BatchStatus(StrEnum):
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class ShardState(StrEnum):
    """See the lettered diagram in ARCHITECTURE.md."""

    PENDING = "pending"
    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    SPLIT = "split"  # replaced by smaller shards of the same lines
    DROPPED = "dropped"  # its batch was cancelled or expired before it ran


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own protocol
        dict[str, Any]: JSON().with_variant(JSONB(), "postgresql"),
        list[Any]: JSON().with_variant(JSONB(), "postgresql"),
        float: Double(),
        # Kept as the member's value in a plain column; an unknown value is an error on the way in and out.
        StrEnum: Enum(
            StrEnum, native_enum=False, length=16, values_callable=lambda enum: [member.value for member in enum]
        ),
    }


class Tenant(Base):
    """A customer. `weight` is its share when shards of several tenants wait.

    `served_from` and `served_to` are the virtual times, in lines / weight, at which its last dispatched
    shard began and ended; see `catalog.shards.dispatch`. `tuned_from` and `tuned_to` are the same of its fine-tuning
    jobs, in tokens / weight; see `catalog.tuning.dispatching`.
    """

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    weight: Mapped[int] = mapped_column(Integer, default=1)
    served_from: Mapped[float] = mapped_column(default=0.0)
    served_to: Mapped[float] = mapped_column(default=0.0)
    tuned_from: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    tuned_to: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    created_at: Mapped[float]


class ApiKey(Base):
    """`id` is the public part of the key; of the secret part only the SHA-256 is kept."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    role: Mapped[Role]
    label: Mapped[str] = mapped_column(String(64), default="")
    secret_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class BaseModel(Base):
    """An hPLM that tenants' models stand on. `tree_number` is the pointer to the published tree,
    `requested_tree` the least version number that answers the last rebuild request; None once one is published.

    `frequency_landmark` and `frequency_half_life` (seconds) are the clock by which its n-grams' weights fade;
    see `catalog.decay`. None until the first n-gram is counted.
    """

    __tablename__ = "base_models"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    artifact: Mapped[str] = mapped_column(String(64))
    spec: Mapped[dict[str, Any]]
    tree_number: Mapped[int | None]
    requested_tree: Mapped[int | None]
    frequency_landmark: Mapped[float | None]
    frequency_half_life: Mapped[float | None]
    created_at: Mapped[float]


class Domain(Base):
    __tablename__ = "domains"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("domains.id"), index=True)
    created_at: Mapped[float]


class DomainDelta(Base):
    """A base model's lower layers as a domain wants them: a LoRA of its own. One for each base and domain."""

    __tablename__ = "domain_deltas"
    base_id: Mapped[str] = mapped_column(ForeignKey("base_models.id", ondelete="CASCADE"), primary_key=True)
    domain_id: Mapped[str] = mapped_column(ForeignKey("domains.id", ondelete="CASCADE"), primary_key=True)
    artifact: Mapped[str] = mapped_column(String(64))
    summary: Mapped[dict[str, Any]]  # rank, layers, sites, bytes: for listings
    created_at: Mapped[float]


class TenantModel(Base):
    """`acme/sentiment`: what a request's `model` names."""

    __tablename__ = "tenant_models"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(64))
    base_id: Mapped[str] = mapped_column(ForeignKey("base_models.id"), index=True)
    domain_id: Mapped[str] = mapped_column(ForeignKey("domains.id"), index=True)
    miss_policy: Mapped[MissPolicy]
    revision: Mapped[int] = mapped_column(Integer, default=1)  # the one that is served
    created_at: Mapped[float]


class AdapterRevision(Base):
    """One upload of weights for a tenant's model. `artifact` None: the base model alone."""

    __tablename__ = "adapter_revisions"
    __table_args__ = (UniqueConstraint("model_id", "revision"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("tenant_models.id", ondelete="CASCADE"))
    revision: Mapped[int]
    artifact: Mapped[str | None] = mapped_column(String(64))
    summary: Mapped[dict[str, Any]]  # kind, rank, labels, bytes: for listings
    created_at: Mapped[float]


class FrequencyPlace(Base):
    """Where counts of n-grams belong: one base model's requests of one domain.

    `rows_bound` is at least the number of its rows in `ngram_frequencies`; see `catalog.trimming`.
    """

    __tablename__ = "frequency_places"
    __table_args__ = (UniqueConstraint("base_id", "domain_id"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[str] = mapped_column(ForeignKey("base_models.id", ondelete="CASCADE"))
    domain_id: Mapped[str] = mapped_column(ForeignKey("domains.id", ondelete="CASCADE"))
    rows_bound: Mapped[int] = mapped_column(BigInteger, default=0)


class NgramFrequency(Base):
    """How often an n-gram was asked for. Millions of rows, written all the time: narrow, in the order of the key.

    `log_weight` is in forward decay (Cormode et al., 2009): a count at time t weighs count * 2^((t - landmark) /
    half life), of which this is the natural logarithm; see `catalog.decay`. `place_id` is a `FrequencyPlace`;
    a foreign key would be looked up for every row, which halves the rate on PostgreSQL.
    """

    __tablename__ = "ngram_frequencies"
    __table_args__ = ({"sqlite_with_rowid": False},)
    place_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ngram: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    log_weight: Mapped[float]


class TreeVersion(Base):
    """One immutable version of a base model's knowledge tree.

    `tables` maps a domain's name to its table's artifact digest, `report` says what the build did, `progress` how
    far it is while it runs.
    """

    __tablename__ = "tree_versions"
    __table_args__ = (
        # At most one build of a base model's tree at a time, whoever asks.
        Index(
            "uq_tree_versions_building",
            "base_id",
            unique=True,
            sqlite_where=text("status = 'building'"),
            postgresql_where=text("status = 'building'"),
        ),
    )
    base_id: Mapped[str] = mapped_column(ForeignKey("base_models.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[TreeStatus]
    tables: Mapped[dict[str, Any]]
    report: Mapped[dict[str, Any]]
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON().with_variant(JSONB(), "postgresql"))
    error: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[float | None]
    created_at: Mapped[float]
    published_at: Mapped[float | None]


class TreeUsage(Base):
    """What lookups found in a version; number 0 stands for "no tree".

    Of `lookups`, `hits` found the window's own row, `inherited` of them in an ancestor's table; `approximate` were
    asked under the policy `backoff`.
    """

    __tablename__ = "tree_usage"
    base_id: Mapped[str] = mapped_column(ForeignKey("base_models.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    domain_id: Mapped[str] = mapped_column(ForeignKey("domains.id", ondelete="CASCADE"), primary_key=True)
    lookups: Mapped[int] = mapped_column(BigInteger, default=0)
    hits: Mapped[int] = mapped_column(BigInteger, default=0)
    inherited: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    approximate: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))


class File(Base):
    """An uploaded or produced file; its bytes lie at `path` in the storage."""

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
    """Counts are sums over shards, never increments; see `catalog.batches.BatchView`.

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
    attributes: Mapped[dict[str, Any]]  # the caller's `metadata`, kept as it came
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


class Shard(Base):
    """Consecutive lines of a batch: bytes `offset`..`offset + length` of the input file.

    `attempt` grows with every dispatch and is the fence: a claim, a lease's extension and a finish all
    name it. `failures` counts only what the shard itself is to blame for.
    """

    __tablename__ = "shards"
    __table_args__ = (
        UniqueConstraint("batch_id", "first_line", "lines"),
        Index("ix_shards_state_tenant_id", "state", "tenant_id"),
        CheckConstraint("lines > 0", name="lines_positive"),
        CheckConstraint("state <> 'done' OR completed + failed = lines", name="every_line_counted"),
    )
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    first_line: Mapped[int]  # 0-based, within the batch
    lines: Mapped[int]
    offset: Mapped[int] = mapped_column(BigInteger)
    length: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[int] = mapped_column(BigInteger, default=1, server_default=text("1"))  # by which tenants take turns
    state: Mapped[ShardState] = mapped_column(default=ShardState.PENDING)
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    last_failure: Mapped[str | None] = mapped_column(Text)
    queued_at: Mapped[float | None]
    owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[float | None]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    output_path: Mapped[str | None] = mapped_column(String(255))
    error_path: Mapped[str | None] = mapped_column(String(255))
    completed: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    input_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    output_tokens: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))


class WorkerNode(Base):
    """A worker process's last sign of life and where adapters lie in it."""

    __tablename__ = "worker_nodes"
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    device: Mapped[str] = mapped_column(String(64))
    pid: Mapped[int]
    stats: Mapped[dict[str, Any]]
    started_at: Mapped[float]
    seen_at: Mapped[float]


class ScheduleTick(Base):
    """One row for each periodic run: two schedulers cannot both start the same one."""

    __tablename__ = "schedule_ticks"
    task: Mapped[str] = mapped_column(String(64), primary_key=True)
    tick: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    created_at: Mapped[float]
