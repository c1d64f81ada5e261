"""Domain deltas; how far a tree's build is; which hits were inherited and which lookups may be approximate.

Counts of n-grams move to a narrow table, where a weight is its logarithm and never has to be scaled again.
"""

from __future__ import annotations

import math

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "domain_deltas",
        sa.Column("base_id", sa.String(length=64), nullable=False),
        sa.Column("domain_id", sa.String(length=64), nullable=False),
        sa.Column("artifact", sa.String(length=64), nullable=False),
        sa.Column("summary", _JSON, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["base_id"], ["base_models.id"], name=op.f("fk_domain_deltas_base_id_base_models"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["domain_id"], ["domains.id"], name=op.f("fk_domain_deltas_domain_id_domains"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("base_id", "domain_id", name=op.f("pk_domain_deltas")),
    )
    op.add_column("tree_versions", sa.Column("progress", _JSON, nullable=True))
    for name in ("inherited", "approximate"):
        op.add_column("tree_usage", sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    _narrow_frequencies()


def _narrow_frequencies() -> None:
    op.create_table(
        "frequency_places",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.String(length=64), nullable=False),
        sa.Column("domain_id", sa.String(length=64), nullable=False),
        sa.Column("rows_bound", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["base_id"], ["base_models.id"], name=op.f("fk_frequency_places_base_id_base_models"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["domain_id"], ["domains.id"], name=op.f("fk_frequency_places_domain_id_domains"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_frequency_places")),
        sa.UniqueConstraint("base_id", "domain_id", name=op.f("uq_frequency_places_base_id_domain_id")),
        sqlite_autoincrement=True,
    )
    op.rename_table("ngram_frequencies", "old_frequencies")
    is_sqlite = op.get_context().dialect.name == "sqlite"
    if is_sqlite:  # which may be built without it; its index goes with its table
        op.get_bind().connection.create_function("ln", 1, math.log)
    else:
        op.execute("ALTER TABLE old_frequencies RENAME CONSTRAINT pk_ngram_frequencies TO pk_old_frequencies")
    op.create_table(
        "ngram_frequencies",
        sa.Column("place_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ngram", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("log_weight", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("place_id", "ngram", name=op.f("pk_ngram_frequencies")),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO frequency_places (base_id, domain_id, rows_bound)"
        " SELECT base_id, domain_id, count(*) FROM old_frequencies GROUP BY base_id, domain_id"
    )
    op.execute(
        "INSERT INTO ngram_frequencies (place_id, ngram, log_weight)"
        " SELECT frequency_places.id, old_frequencies.ngram, ln(old_frequencies.weight) FROM old_frequencies"
        " JOIN frequency_places ON frequency_places.base_id = old_frequencies.base_id"
        " AND frequency_places.domain_id = old_frequencies.domain_id WHERE old_frequencies.weight > 0"
        " ORDER BY frequency_places.id, old_frequencies.ngram"
    )
    op.drop_table("old_frequencies")


def downgrade() -> None:
    # The counts are let go: their weights may by now be greater than a float without its logarithm can say.
    op.drop_table("ngram_frequencies")
    op.drop_table("frequency_places")
    op.execute(sa.update(sa.table("base_models", sa.column("frequency_landmark"))).values(frequency_landmark=None))
    op.create_table(
        "ngram_frequencies",
        sa.Column("base_id", sa.String(length=64), nullable=False),
        sa.Column("domain_id", sa.String(length=64), nullable=False),
        sa.Column("ngram", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["base_id"], ["base_models.id"], name=op.f("fk_ngram_frequencies_base_id_base_models"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["domain_id"], ["domains.id"], name=op.f("fk_ngram_frequencies_domain_id_domains"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("base_id", "domain_id", "ngram", name=op.f("pk_ngram_frequencies")),
    )
    for name in ("approximate", "inherited"):
        op.drop_column("tree_usage", name)
    op.drop_column("tree_versions", "progress")
    op.drop_table("domain_deltas")
