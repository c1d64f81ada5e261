"""The tree of domains under `general`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session, aliased

from hmi.catalog.database import execute_dml, insert_or, now
from hmi.catalog.registry.names import check_name
from hmi.catalog.schema import GENERAL, Audience, Domain, DomainTenant, Tenant, new_id
from hmi.errors import Conflict, InvalidInput, NotFound


@dataclass(frozen=True, slots=True)
class DomainView:
    """A domain and who may use it."""

    id: str
    name: str
    parent: str | None  # its name; None for `general` alone
    created_at: float
    audience: Audience = Audience.PUBLIC
    owner: str | None = None  # name of a tenant; None: the operator
    owner_id: str | None = None
    owner_bit: int | None = None
    tenants: Mapping[str, str] = field(default_factory=dict)  # names by id, where the audience is `tenants`

    @property
    def scope(self) -> str:
        """Equal for domains that the same tenants may use."""
        if self.audience is Audience.PRIVATE:
            return f"private:{self.owner_id}"
        return "public" if self.audience is Audience.PUBLIC else f"tenants:{','.join(sorted(self.tenants))}"

    def may_be_used_by(self, tenant_id: str) -> bool:
        if self.audience is Audience.PRIVATE:
            return tenant_id == self.owner_id
        return self.audience is Audience.PUBLIC or tenant_id in self.tenants


def create_domain(session: Session, name: str, parent: str = GENERAL) -> DomainView:
    """Raises `Conflict` if the name is taken, `NotFound` for the parent, `InvalidInput`."""
    check_name(name)
    above = get_domain(session, parent, param="parent")
    values = {"id": new_id("domain_"), "name": name, "parent_id": above.id, "created_at": now()}
    if not execute_dml(session, insert_or(session, Domain).values(**values).on_conflict_do_nothing()):
        raise Conflict(f"there is a domain {name} already", param="name")
    return get_domain(session, name)


def get_domain(session: Session, name: str, *, param: str = "domain") -> DomainView:
    """Raises `NotFound`."""
    found = _find(session, Domain.name == name)
    if not found:
        raise NotFound(f"there is no domain {name[:80]!r}", code="domain_not_found", param=param)
    return found[0]


def list_domains(session: Session) -> list[DomainView]:
    """All domains by name."""
    return _find(session)


def parents(session: Session) -> dict[str, str | None]:
    """Return every domain's parent by name; `general` has None."""
    return {view.name: view.parent for view in list_domains(session)}


def move_domain(session: Session, name: str, parent: str) -> DomainView:
    """Give a domain and its descendants another parent.

    Raises `InvalidInput` if that would close a cycle or move `general`, `NotFound`.
    """
    # Moves lock the root: two concurrent moves could close a cycle together.
    session.execute(select(Domain.id).where(Domain.name == GENERAL).with_for_update())
    moved, above = get_domain(session, name), get_domain(session, parent, param="parent")
    chain, tree = [above.name], parents(session)
    while (up := tree[chain[-1]]) is not None:
        chain.append(up)
    if name == GENERAL or name in chain:
        raise InvalidInput(f"{name} cannot be under {parent}: that would close a cycle", param="parent")
    execute_dml(session, update(Domain).where(Domain.id == moved.id).values(parent_id=above.id))
    return get_domain(session, name)


def _find(session: Session, *conditions: ColumnElement[bool]) -> list[DomainView]:
    above, owner = aliased(Domain), aliased(Tenant)
    columns = (Domain.id, Domain.name, above.name, Domain.created_at, Domain.audience, owner.name, owner.id, owner.bit)
    views = select(*columns).outerjoin(above, above.id == Domain.parent_id)
    rows = session.execute(
        views.outerjoin(owner, owner.id == Domain.owner_id).where(*conditions).order_by(Domain.name)
    ).all()
    allowed: dict[str, dict[str, str]] = defaultdict(dict)
    if any(row[4] is Audience.TENANTS for row in rows):
        named = select(DomainTenant.domain_id, Tenant.id, Tenant.name).join(Tenant, Tenant.id == DomainTenant.tenant_id)
        for domain_id, tenant_id, name in session.execute(named.order_by(Tenant.name)):
            allowed[domain_id][tenant_id] = name
    return [DomainView(*row, tenants=allowed.get(row[0], {})) for row in rows]
