"""Tenants and their keys; base models, domains with their deltas; tenants' models with their adapter revisions."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from hmi.catalog.schema.base import Base
from hmi.spec import CountPolicy, MissPolicy

GENERAL = "general"  # the root of all domains
OPERATOR = "operator"  # the tenant that admin keys belong to


class Role(StrEnum):
    ADMIN = "admin"
    TENANT = "tenant"


class Audience(StrEnum):
    """Which tenants may use a domain: all, those in `domain_tenants`, or its owner alone, for ever."""

    PUBLIC = "public"
    TENANTS = "tenants"
    PRIVATE = "private"


class Tenant(Base):
    """A customer. `weight` is its share when jobs of several tenants wait.

    `bit` is its place in the bitmaps of tenants beside n-gram counts; beyond `TENANT_BITS` tenants, several share one.
    `counts` None is the default of the settings.

    `served_from` and `served_to` are the virtual start and finish times of its last dispatched shard, in cost / weight;
    `tuned_from` and `tuned_to` those of its last fine-tuning job (see `catalog.queue`).
    """

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    weight: Mapped[int] = mapped_column(Integer, default=1)
    bit: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    counts: Mapped[CountPolicy | None]
    served_from: Mapped[float] = mapped_column(default=0.0)
    served_to: Mapped[float] = mapped_column(default=0.0)
    tuned_from: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    tuned_to: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    created_at: Mapped[float]


class ApiKey(Base):
    """`id` is the public part of the key; of the secret part only the SHA-256 is stored."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    role: Mapped[Role]
    label: Mapped[str] = mapped_column(String(64), default="")
    secret_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class RegisteredBase(Base):
    """An hPLM that tenants' models are based on. `tree_number` points to the published tree version;
    `requested_tree` is the least version number that answers the last rebuild request; None if no request is open.

    `frequency_landmark` and `frequency_half_life` (seconds) set the decay of its n-gram counts (`trees.frequencies`);
    None until the first n-gram is counted.
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
    """A node of the domain tree. No audience is wider than the parent's.

    `owner_id` is a tenant's, None: the operator's. It is no foreign key, which SQLite cannot add to a table that others
    refer to; `tenants.delete_tenant` sees to it. `widened_at`: when its audience last became wider.
    """

    __tablename__ = "domains"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("domains.id"), index=True)
    owner_id: Mapped[str | None] = mapped_column(String(64))
    audience: Mapped[Audience] = mapped_column(default=Audience.PUBLIC, server_default=text("'public'"))
    widened_at: Mapped[float | None]
    created_at: Mapped[float]


class DomainTenant(Base):
    """A tenant that may use a domain whose audience is `tenants`."""

    __tablename__ = "domain_tenants"
    domain_id: Mapped[str] = mapped_column(ForeignKey("domains.id", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True, index=True)


class ForgottenTenant(Base):
    """A deleted tenant, until the next rebuilds have removed its share of the n-gram counts."""

    __tablename__ = "forgotten_tenants"
    tenant_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    bit: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[float]


class DomainDelta(Base):
    """A LoRA on a base model's lower layers, for a domain and its descendants.

    `owner_id` is the tenant on whose text it was trained; None: the operator's own. Unless `is_published`, only that
    tenant may use it.
    """

    __tablename__ = "domain_deltas"
    base_id: Mapped[str] = mapped_column(ForeignKey("base_models.id", ondelete="CASCADE"), primary_key=True)
    domain_id: Mapped[str] = mapped_column(ForeignKey("domains.id", ondelete="CASCADE"), primary_key=True)
    artifact: Mapped[str] = mapped_column(String(64))
    summary: Mapped[dict[str, Any]]  # rank, layers, sites, bytes: for listings
    owner_id: Mapped[str | None] = mapped_column(String(64))
    is_published: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[float]


class TenantModel(Base):
    """What a request's `model` names, for example `acme/sentiment`."""

    __tablename__ = "tenant_models"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(64))
    base_id: Mapped[str] = mapped_column(ForeignKey("base_models.id"), index=True)
    domain_id: Mapped[str] = mapped_column(ForeignKey("domains.id"), index=True)
    miss_policy: Mapped[MissPolicy]
    revision: Mapped[int] = mapped_column(Integer, default=1)  # the served one
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
