"""The least version number that answers an open request to rebuild a tree."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("base_models", sa.Column("requested_tree", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("base_models", "requested_tree")
