"""Tenants and their API keys."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import ForeignKey, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from hmi.catalog.schema.base import Base

OPERATOR = "operator"  # the tenant that admin keys belong to


class Role(StrEnum):
    ADMIN = "admin"
    TENANT = "tenant"


class Tenant(Base):
    """A customer. `weight` is its share when jobs of several tenants wait.

    `served_from` and `served_to` are the virtual start and finish times of its last dispatched shard, in cost / weight;
    `tuned_from` and `tuned_to` those of its last fine-tuning job (see `catalog.queue`).
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
