"""Row-level security on PostgreSQL: the role as which the requests of tenants run their statements.

Policies bind `TENANT_ROLE` alone (migration 0007): it sees and changes the rows of the tenant in the setting
`hmi.tenant_id`. They are a second wall behind the tenant filter of every query: a statement that forgot its filter
finds nothing of other tenants. They are not against injected SQL, which could set another tenant.
"""

from __future__ import annotations

from sqlalchemy import Connection, event, exc, text
from sqlalchemy.orm import Session, SessionTransaction

from hmi.errors import Transient

TENANT_ROLE = "hmi_tenant"

# One round trip. `true`: until the end of the transaction, however it ends.
_ENTER = text("SELECT set_config('role', :role, true), set_config('hmi.tenant_id', :tenant_id, true)")
_NOT_A_MEMBER = ("42501", "22023")  # the user may not take the role, or there is none
_IS_BOUND = text(
    "SELECT row_security_active('tenants') AND pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = :role"
)


def confine(session: Session, tenant_id: str) -> None:
    """Begin every transaction of a session on PostgreSQL as `TENANT_ROLE` for this tenant."""

    def enter(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
        try:
            connection.execute(_ENTER, {"role": TENANT_ROLE, "tenant_id": tenant_id})
        except exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) in _NOT_A_MEMBER:
                raise _misconfigured(f"cannot take the role {TENANT_ROLE}") from error
            raise

    event.listen(session, "after_begin", enter)


def check_login(session: Session) -> None:
    """Raises `Transient` where the policies bind the session's own user, who could then authenticate no key."""
    if session.execute(_IS_BOUND, {"role": TENANT_ROLE}).scalar():
        raise _misconfigured(f"inherits the role {TENANT_ROLE} and is bound by its policies")


def _misconfigured(what: str) -> Transient:
    grant = f"GRANT {TENANT_ROLE} TO <user> WITH INHERIT FALSE, SET TRUE"
    return Transient(f"the catalog's user {what}; an administrator of the database runs `{grant}`", code="tenant_role")
