"""Knowledge trees: counts of n-grams, versions, what lookups found."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from hmi.catalog.schema.base import JSON_TYPE, Base


class TreeStatus(StrEnum):
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


class FrequencyPlace(Base):
    """The n-gram counts of one base model and domain.

    `rows_bound` is an upper bound of its rows in `ngram_frequencies` (`trees.trimming`).
    """

    __tablename__ = "frequency_places"
    __table_args__ = (UniqueConstraint("base_id", "domain_id"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[str] = mapped_column(ForeignKey("base_models.id", ondelete="CASCADE"))
    domain_id: Mapped[str] = mapped_column(ForeignKey("domains.id", ondelete="CASCADE"))
    rows_bound: Mapped[int] = mapped_column(BigInteger, default=0)


class NgramFrequency(Base):
    """The decayed count of an n-gram: millions of narrow rows in key order, written all the time.

    `log_weight` is the natural logarithm of a forward-decayed weight (`trees.frequencies`). `tenants` is a bitmap
    of the tenants that asked for it (`hmi.tenant_bits`), 0 if they are not known. `place_id` is a
    `FrequencyPlace`, without a foreign key: checking one for every row halves the write rate on PostgreSQL.
    """

    __tablename__ = "ngram_frequencies"
    __table_args__ = ({"sqlite_with_rowid": False},)
    place_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ngram: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    log_weight: Mapped[float]
    tenants: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))


class TreeVersion(Base):
    """One immutable version of a base model's knowledge tree.

    `tables` maps a domain's name to its table's artifact digest, `report` is the build's result, `progress` its
    progress while it runs.
    """

    __tablename__ = "tree_versions"
    __table_args__ = (
        # At most one running build for each base model.
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
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON_TYPE)
    error: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[float | None]
    created_at: Mapped[float]
    published_at: Mapped[float | None]


class TreeUsage(Base):
    """Lookup counts of a tree version; number 0 means "no tree".

    `hits` of the `lookups` found the window's own row, `inherited` of these in an ancestor's table. `approximate`
    lookups ran under the miss policy `backoff`.
    """

    __tablename__ = "tree_usage"
    base_id: Mapped[str] = mapped_column(ForeignKey("base_models.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    domain_id: Mapped[str] = mapped_column(ForeignKey("domains.id", ondelete="CASCADE"), primary_key=True)
    lookups: Mapped[int] = mapped_column(BigInteger, default=0)
    hits: Mapped[int] = mapped_column(BigInteger, default=0)
    inherited: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    approximate: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
