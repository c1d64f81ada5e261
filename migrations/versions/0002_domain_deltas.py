"""Domain deltas; how far a tree's build is; which hits were inherited and which lookups may be approximate."""

from __future__ import annotations

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


def downgrade() -> None:
    for name in ("approximate", "inherited"):
        op.drop_column("tree_usage", name)
    op.drop_column("tree_versions", "progress")
    op.drop_table("domain_deltas")
