"""The tree of domains under `general`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session, aliased

from hmi.catalog.database import execute_dml, insert_or, now
from hmi.catalog.registry.names import check_name
from hmi.catalog.schema import GENERAL, Domain, new_id
from hmi.errors import Conflict, InvalidInput, NotFound


@dataclass(frozen=True, slots=True)
class DomainView:
    """A domain; `parent` is its parent's name, None for `general` alone."""

    id: str
    name: str
    parent: str | None
    created_at: float


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
    row = session.execute(_views().where(Domain.name == name)).one_or_none()
    if row is None:
        raise NotFound(f"there is no domain {name[:80]!r}", code="domain_not_found", param=param)
    return DomainView(*row)


def list_domains(session: Session) -> list[DomainView]:
    """All domains by name."""
    return [DomainView(*row) for row in session.execute(_views().order_by(Domain.name))]


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


def _views() -> Select[str, str, str, float]:
    above = aliased(Domain)
    return select(Domain.id, Domain.name, above.name, Domain.created_at).outerjoin(above, above.id == Domain.parent_id)
