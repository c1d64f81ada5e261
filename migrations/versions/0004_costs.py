"""What a shard is taken to cost, and the tokens that its answers have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("shards", sa.Column("output_tokens", sa.BigInteger(), nullable=False, server_default=sa.text("0")))

    op.add_column("shards", sa.Column("cost", sa.BigInteger(), nullable=False, server_default=sa.text("1")))
    op.execute("UPDATE shards SET cost = lines")


def downgrade() -> None:
    op.drop_column("shards", "cost")
    op.drop_column("shards", "output_tokens")
