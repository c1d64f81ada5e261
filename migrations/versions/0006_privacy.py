"""Which tenants asked for an n-gram, who may use a domain, whose a domain delta is.

Counts from before are of unknown origin: they are kept, and no rebuild holds their n-grams until a tenant asks again or
the operator declares them public. So every published tree is requested anew; the old one serves until then.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_BITS = 62  # `hmi.tenant_bits.TENANT_BITS` when this was written


def upgrade() -> None:
    op.add_column("ngram_frequencies", sa.Column("tenants", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("tenants", sa.Column("bit", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("tenants", sa.Column("counts", sa.String(length=16), nullable=True))
    op.create_table(
        "forgotten_tenants",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("bit", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_forgotten_tenants")),
    )
    for name in ("domains", "domain_deltas"):
        op.add_column(name, sa.Column("owner_id", sa.String(length=64), nullable=True))
    op.add_column(
        "domains", sa.Column("audience", sa.String(length=16), nullable=False, server_default=sa.text("'public'"))
    )
    op.add_column("domains", sa.Column("widened_at", sa.Double(), nullable=True))
    op.create_table(
        "domain_tenants",
        sa.Column("domain_id", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["domain_id"], ["domains.id"], name=op.f("fk_domain_tenants_domain_id_domains"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_domain_tenants_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("domain_id", "tenant_id", name=op.f("pk_domain_tenants")),
    )
    op.create_index(op.f("ix_domain_tenants_tenant_id"), "domain_tenants", ["tenant_id"])
    op.add_column("domain_deltas", sa.Column("is_published", sa.Boolean(), nullable=False, server_default=sa.false()))
    _number_tenants()
    _request_rebuilds()


def downgrade() -> None:
    op.drop_table("domain_tenants")
    op.drop_table("forgotten_tenants")
    op.drop_column("domain_deltas", "is_published")
    op.drop_column("domain_deltas", "owner_id")
    op.drop_column("domains", "widened_at")
    op.drop_column("domains", "audience")
    op.drop_column("domains", "owner_id")
    op.drop_column("tenants", "counts")
    op.drop_column("tenants", "bit")
    op.drop_column("ngram_frequencies", "tenants")


def _number_tenants() -> None:
    connection = op.get_bind()
    ids = connection.execute(sa.text("SELECT id FROM tenants ORDER BY created_at, id")).scalars().all()
    for number, tenant_id in enumerate(ids):
        values = {"bit": number % _BITS, "id": tenant_id}
        connection.execute(sa.text("UPDATE tenants SET bit = :bit WHERE id = :id"), values)


def _request_rebuilds() -> None:
    op.execute(
        "UPDATE base_models SET requested_tree = (SELECT max(number) + 1 FROM tree_versions"
        " WHERE tree_versions.base_id = base_models.id) WHERE tree_number IS NOT NULL"
    )
