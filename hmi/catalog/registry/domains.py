"""The tree of domains under `general`, and who may use each."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session, aliased

from hmi.catalog.database import execute_dml, insert_or, lock_for_transaction, now
from hmi.catalog.registry.names import check_name
from hmi.catalog.registry.tenants import Principal, get_tenant, lock_tenant
from hmi.catalog.schema import GENERAL, Audience, Domain, DomainTenant, Tenant, new_id
from hmi.errors import Conflict, InvalidInput, NotFound

# Held alone by what changes the tree of domains or an audience, and shared by what relies on either until its commit.
_LOCK = 0x686D6964


@dataclass(frozen=True, slots=True)
class DomainView:
    """A domain and who may use it."""

    id: str
    name: str
    parent: str | None  # its name; None for `general` alone
    created_at: float
    audience: Audience = Audience.PUBLIC
    owner: str | None = None  # the tenant's name; None: the operator
    owner_id: str | None = None
    owner_bit: int | None = None
    tenants: tuple[str, ...] = ()  # names, where the audience is `tenants`
    tenant_ids: frozenset[str] = frozenset()

    @property
    def readers(self) -> frozenset[str] | None:
        """Ids of the tenants that may use it; None: all."""
        if self.audience is Audience.PRIVATE:
            return frozenset([self.owner_id] if self.owner_id else [])
        return None if self.audience is Audience.PUBLIC else self.tenant_ids

    @property
    def scope(self) -> str:
        """Equal for domains of one audience, and for these alone."""
        if self.audience is Audience.PRIVATE:
            return f"private:{self.owner_id}"
        return "public" if self.audience is Audience.PUBLIC else f"tenants:{','.join(sorted(self.tenant_ids))}"

    def may_use(self, tenant_id: str) -> bool:
        return self.readers is None or tenant_id in self.readers

    def is_within(self, other: DomainView) -> bool:
        """Whether all who may use it may use `other`, and what is in a private domain stays private."""
        if other.audience is Audience.PRIVATE:
            return self.scope == other.scope
        return other.readers is None or (self.readers is not None and self.readers <= other.readers)


def create_domain(
    session: Session,
    name: str,
    parent: str = GENERAL,
    *,
    owner: str | None = None,
    audience: Audience | None = None,
    tenants: Sequence[str] = (),
) -> DomainView:
    """Create a domain. `owner` and `tenants` are names; an audience of None is the parent's, with its owner and list.

    An owner is one of the `tenants`. Raises `Conflict` if the name is taken or the audience is wider than the parent's,
    `NotFound` (parent, owner, tenants), `InvalidInput`.
    """
    check_name(name)
    lock_domains(session)
    above = get_domain(session, parent, param="parent")
    if audience is None and not tenants:
        audience, owner = above.audience, owner or above.owner
        tenants = above.tenants
    audience = audience or Audience.TENANTS
    listed = tenants_of(session, audience, tenants, owner)
    owner_id = get_tenant(session, owner, param="owner").id if owner else None
    if owner_id is not None:
        lock_tenant(session, owner_id)  # its deletion takes what it owns along
    if audience is Audience.PRIVATE and owner_id is None:
        raise InvalidInput("a private domain has an owner, and none was named", param="owner")
    values = {"id": new_id("domain_"), "name": name, "parent_id": above.id, "created_at": now()}
    insert = insert_or(session, Domain).values(**values, owner_id=owner_id, audience=audience)
    if not execute_dml(session, insert.on_conflict_do_nothing()):
        raise Conflict(f"there is a domain {name} already", param="name")
    if listed:
        session.add_all(DomainTenant(domain_id=str(values["id"]), tenant_id=each) for each in sorted(listed))
        session.flush()
    made = get_domain(session, name)
    require_within(made, above)
    return made


def get_domain(session: Session, name: str, *, tenant_id: str | None = None, param: str = "domain") -> DomainView:
    """Return a domain; with `tenant_id` only one that this tenant may use.

    Raises `NotFound`, the same for a domain that the tenant may not use and for an unknown one.
    """
    found = next(_views(session, Domain.name == name), None)
    if found is None or (tenant_id is not None and not found.may_use(tenant_id)):
        raise NotFound(f"there is no domain {name[:80]!r}", code="domain_not_found", param=param)
    return found


def list_domains(session: Session, principal: Principal | None = None) -> list[DomainView]:
    """All domains by name; with a tenant's principal those that the tenant may use."""
    everything = principal is None or principal.is_admin
    return [view for view in _views(session) if everything or (principal and view.may_use(principal.tenant_id))]


def parents(session: Session) -> dict[str, str | None]:
    """Return every domain's parent by name; `general` has None."""
    return {view.name: view.parent for view in list_domains(session)}


def widened_domains(session: Session, *, seconds: float) -> set[str]:
    """Return the ids of the domains whose audience became wider in the last `seconds`.

    No other one's does until the end of the transaction.
    """
    lock_domains(session, shared=True)
    return set(session.scalars(select(Domain.id).where(Domain.widened_at >= now() - seconds)))


def move_domain(session: Session, name: str, parent: str) -> DomainView:
    """Give a domain and its descendants another parent.

    Raises `InvalidInput` if that would close a cycle or move `general`, `Conflict` if the domain's audience is wider
    than the new parent's, `NotFound`.
    """
    # Without the lock two concurrent moves could close a cycle together.
    lock_domains(session)
    moved, above = get_domain(session, name), get_domain(session, parent, param="parent")
    chain, tree = [above.name], parents(session)
    while (up := tree[chain[-1]]) is not None:
        chain.append(up)
    if name == GENERAL or name in chain:
        raise InvalidInput(f"{name} cannot be under {parent}: that would close a cycle", param="parent")
    require_within(moved, above)
    execute_dml(session, update(Domain).where(Domain.id == moved.id).values(parent_id=above.id))
    return dataclasses.replace(moved, parent=above.name)


def lock_domains(session: Session, *, shared: bool = False) -> None:
    """Let no transaction change the tree of domains or an audience until this one's end; `shared`: nor this one."""
    lock_for_transaction(session, _LOCK, shared=shared)


def require_within(domain: DomainView, above: DomainView) -> None:
    """Raises `Conflict` if the domain's audience is wider than that of `above`."""
    if not domain.is_within(above):
        message = f"not all tenants that may use {domain.name} may use {above.name}, which is above it"
        raise Conflict(message, code="audience_too_wide", param="audience")


def tenants_of(session: Session, audience: Audience, names: Sequence[str], owner: str | None = None) -> frozenset[str]:
    """Return the ids of the tenants in an audience's list, the owner among them.

    Raises `NotFound`, `InvalidInput` where the audience has no list, or an empty one.
    """
    if audience is not Audience.TENANTS:
        if names:
            raise InvalidInput(f"the audience {audience} has no list of tenants", param="tenants")
        return frozenset()
    listed = {*names, *([owner] if owner else [])}
    if not listed:
        raise InvalidInput("name the tenants that may use the domain", param="tenants")
    return frozenset(get_tenant(session, each, param="tenants").id for each in sorted(listed))


def _views(session: Session, *conditions: ColumnElement[bool]) -> Iterator[DomainView]:
    above, owner = aliased(Domain), aliased(Tenant)
    columns = (Domain.id, Domain.name, above.name, Domain.created_at, Domain.audience)
    views = select(*columns, owner.name, Domain.owner_id, owner.bit).outerjoin(above, above.id == Domain.parent_id)
    views = views.outerjoin(owner, owner.id == Domain.owner_id)
    rows = session.execute(views.where(*conditions).order_by(Domain.name)).all()
    listed: dict[str, list[tuple[str | None, str]]] = defaultdict(list)
    if any(row[4] is Audience.TENANTS for row in rows):
        # A tenant's session has no names of other tenants, except in the lists of its own domains.
        members = select(DomainTenant.domain_id, Tenant.name, DomainTenant.tenant_id).outerjoin(Tenant)
        for domain_id, name, tenant_id in session.execute(members.order_by(Tenant.name)):
            listed[domain_id].append((name, tenant_id))
    for row in rows:
        tenants = listed[row[0]]
        yield DomainView(*row, tuple(name for name, _ in tenants if name), frozenset(each for _, each in tenants))
