"""Fine-tuning jobs and their events; the tenants' turns at training."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TURNS = ("tuned_from", "tuned_to")


def upgrade() -> None:
    for name in _TURNS:
        op.add_column("tenants", sa.Column(name, sa.Double(), nullable=False, server_default=sa.text("0")))
    op.create_table(
        "fine_tuning_jobs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=130), nullable=False),
        sa.Column("base", sa.String(length=64), nullable=False),
        sa.Column("base_id", sa.String(length=64), nullable=True),
        sa.Column("domain", sa.String(length=64), nullable=False),
        sa.Column("domain_id", sa.String(length=64), nullable=True),
        sa.Column("miss_policy", sa.String(length=16), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("training_file_id", sa.String(length=64), nullable=False),
        sa.Column("training_path", sa.String(length=255), nullable=False),
        sa.Column("validation_file_id", sa.String(length=64), nullable=True),
        sa.Column("validation_path", sa.String(length=255), nullable=True),
        sa.Column("request", _JSON, nullable=False),
        sa.Column("config", _JSON, nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("attributes", _JSON, nullable=False),
        sa.Column("idempotency_key", sa.String(length=128), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_failure", sa.Text(), nullable=True),
        sa.Column("not_before", sa.Double(), nullable=True),
        sa.Column("queued_at", sa.Double(), nullable=True),
        sa.Column("owner", sa.String(length=128), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("progress", _JSON, nullable=True),
        sa.Column("estimated_finish", sa.Double(), nullable=True),
        sa.Column("epochs_said", sa.Integer(), nullable=False),
        sa.Column("checkpoint_path", sa.String(length=255), nullable=True),
        sa.Column("checkpoint_step", sa.Integer(), nullable=False),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=True),
        sa.Column("fine_tuned_model", sa.String(length=130), nullable=True),
        sa.Column("result_file_id", sa.String(length=64), nullable=True),
        sa.Column("error", _JSON, nullable=True),
        sa.CheckConstraint(
            "state <> 'succeeded' OR fine_tuned_model IS NOT NULL",
            name=op.f("ck_fine_tuning_jobs_success_has_a_model"),
        ),
        sa.ForeignKeyConstraint(
            ["base_id"], ["base_models.id"], name=op.f("fk_fine_tuning_jobs_base_id_base_models"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["domain_id"], ["domains.id"], name=op.f("fk_fine_tuning_jobs_domain_id_domains"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_fine_tuning_jobs_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fine_tuning_jobs")),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name=op.f("uq_fine_tuning_jobs_tenant_id_idempotency_key")),
    )
    for columns in (["base_id"], ["domain_id"], ["state"], ["tenant_id", "created_at", "id"]):
        op.create_index(op.f(f"ix_fine_tuning_jobs_{'_'.join(columns)}"), "fine_tuning_jobs", columns)
    op.create_table(
        "fine_tuning_events",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", _JSON, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["fine_tuning_jobs.id"],
            name=op.f("fk_fine_tuning_events_job_id_fine_tuning_jobs"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_fine_tuning_events_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_fine_tuning_events")),
        sa.UniqueConstraint("id", name=op.f("uq_fine_tuning_events_id")),
    )
    op.create_index(op.f("ix_fine_tuning_events_tenant_id"), "fine_tuning_events", ["tenant_id"])


def downgrade() -> None:
    op.drop_table("fine_tuning_events")
    op.drop_table("fine_tuning_jobs")
    for name in reversed(_TURNS):
        op.drop_column("tenants", name)
