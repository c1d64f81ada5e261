"""Row-level security on PostgreSQL: the role of tenants' requests, what it may do, which rows it sees.

The role owns nothing. Restrictive policies bind it alone; the policy `hmi_all` leaves every other user to its grants.
The owner of the tables (migrations, workers, administrators' requests) is not bound at all.

Roles belong to the whole server, so the role may exist, and a downgrade leaves it for other databases.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy import exc

from hmi.errors import Forbidden

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ROLE = "hmi_tenant"
_ME = "current_setting('hmi.tenant_id', true)"
_MINE = f"tenant_id = {_ME}"

# Locking a row (SELECT ... FOR UPDATE) needs the right to update one of its columns.
_GRANTS = {
    "tenants": "SELECT, UPDATE (counts)",
    "base_models": "SELECT",
    "domains": "SELECT",
    "domain_tenants": "SELECT",
    "domain_deltas": "SELECT, INSERT, UPDATE, DELETE",
    "tenant_models": "SELECT, INSERT, UPDATE (base_id, domain_id, miss_policy, revision), DELETE",
    "adapter_revisions": "SELECT, INSERT",
    "files": "SELECT, INSERT, UPDATE (filename), DELETE",
    "batches": "SELECT, INSERT, UPDATE (status, cancelling_at)",
    "shards": "SELECT, INSERT, UPDATE (state, finished_at)",
    "fine_tuning_jobs": "SELECT, INSERT, UPDATE (state, finished_at, lease_until, estimated_finish)",
    "fine_tuning_events": "SELECT, INSERT",
    "frequency_places": "SELECT",
    "ngram_frequencies": "SELECT",
    "tree_versions": "SELECT (base_id, number, tables, created_at)",
}

# Runs as the owner of the tables: policies of two tables must not refer to each other.
_USABLE_DOMAINS = """
CREATE FUNCTION hmi_usable_domains() RETURNS SETOF text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
  SELECT id FROM {schema}.domains
  WHERE audience = 'public' OR owner_id = {me} OR (audience = 'tenants'
    AND id IN (SELECT domain_id FROM {schema}.domain_tenants WHERE tenant_id = {me}))
$$
"""
_OWNED = f"owner_id = {_ME}"
_OF_USABLE_DOMAIN = "domain_id IN (SELECT id FROM domains)"
_OF_PRIVATE_DOMAIN = f"domain_id IN (SELECT id FROM domains WHERE audience = 'private' AND {_OWNED})"


def _all(rows: str, new_rows: str | None = None) -> dict[str, str]:
    return {"ALL": f"USING ({rows}) WITH CHECK ({new_rows or rows})"}


# A subquery finds what the role may see.
_POLICIES = {
    "tenants": {
        "SELECT": f"USING (id = {_ME} OR id IN (SELECT tenant_id FROM domain_tenants WHERE domain_id"
        f" IN (SELECT id FROM domains WHERE {_OWNED})))",
        "UPDATE": f"USING (id = {_ME}) WITH CHECK (id = {_ME})",
    },
    "api_keys": _all(_MINE),
    "domains": _all("audience = 'public' OR id IN (SELECT hmi_usable_domains())"),
    "domain_tenants": _all("domain_id IN (SELECT hmi_usable_domains())"),
    "domain_deltas": {
        "SELECT": f"USING ((owner_id IS NULL OR is_published OR {_OWNED}) AND {_OF_USABLE_DOMAIN})",
        "INSERT": f"WITH CHECK ({_OWNED} AND {_OF_PRIVATE_DOMAIN})",
        "UPDATE": f"USING ({_OF_PRIVATE_DOMAIN}) WITH CHECK ({_OWNED} AND {_OF_PRIVATE_DOMAIN})",
        "DELETE": f"USING ({_OF_PRIVATE_DOMAIN})",
    },
    "tenant_models": _all(_MINE, f"{_MINE} AND {_OF_USABLE_DOMAIN}"),
    "adapter_revisions": _all("model_id IN (SELECT id FROM tenant_models)"),
    "files": _all(_MINE),
    "batches": _all(_MINE),
    "shards": _all(_MINE, f"{_MINE} AND batch_id IN (SELECT id FROM batches)"),
    "fine_tuning_jobs": _all(_MINE),
    "fine_tuning_events": _all(_MINE, f"{_MINE} AND job_id IN (SELECT id FROM fine_tuning_jobs)"),
    "frequency_places": _all(_OF_PRIVATE_DOMAIN),
    "ngram_frequencies": _all("place_id IN (SELECT id FROM frequency_places)"),
}


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    _provide_role()
    op.execute(_USABLE_DOMAINS.format(schema=_schema(), me=_ME))
    op.execute("REVOKE ALL ON FUNCTION hmi_usable_domains() FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION hmi_usable_domains() TO {_ROLE}")
    for table, rights in _GRANTS.items():
        op.execute(f"GRANT {rights} ON {table} TO {_ROLE}")
    for table, policies in _POLICIES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY hmi_all ON {table} USING (true)")
        for command, rows in policies.items():
            name = f"hmi_tenant_{command.lower()}"
            op.execute(f"CREATE POLICY {name} ON {table} AS RESTRICTIVE FOR {command} TO {_ROLE} {rows}")


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, policies in _POLICIES.items():
        for name in ("hmi_all", *(f"hmi_tenant_{command.lower()}" for command in policies)):
            op.execute(f"DROP POLICY {name} ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for table in _GRANTS:
        op.execute(f"REVOKE ALL ON {table} FROM {_ROLE}")
    op.execute("DROP FUNCTION hmi_usable_domains()")


def _provide_role() -> None:
    """Create the role where it is missing; let the current user take it, and it reach the tables' schema."""
    connection = op.get_bind()
    can_grant_set = connection.dialect.server_version_info >= (16,)  # type: ignore[operator]
    right, options = ("SET", " WITH INHERIT FALSE, SET TRUE") if can_grant_set else ("MEMBER", "")
    is_there = f"SELECT count(*) > 0 FROM pg_roles WHERE rolname = '{_ROLE}'"
    may_take = f"SELECT pg_has_role(current_user, '{_ROLE}', '{right}')"
    create, grant = f"CREATE ROLE {_ROLE} NOLOGIN", f"GRANT {_ROLE} TO CURRENT_USER{options}"
    for is_done, statement in ((is_there, create), (may_take, grant)):
        if connection.scalar(sa.text(is_done)):
            continue
        try:
            with connection.begin_nested():
                op.execute(statement)
        except exc.DBAPIError as error:
            # The migration of another database may have done the same, and was waited for.
            if not connection.scalar(sa.text(is_done)):
                user = connection.scalar(sa.text("SELECT quote_ident(current_user)"))
                needed = f"CREATE ROLE {_ROLE} NOLOGIN; GRANT {_ROLE} TO {user}{options};"
                message = f"{user} may not create or take a role; an administrator of the server runs first: {needed}"
                raise Forbidden(message) from error
    if not connection.scalar(sa.text(f"SELECT has_schema_privilege('{_ROLE}', current_schema(), 'USAGE')")):
        op.execute(f"GRANT USAGE ON SCHEMA {_schema()} TO {_ROLE}")


def _schema() -> str:
    return str(op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())")))
