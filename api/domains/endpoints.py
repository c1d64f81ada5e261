"""/v1/hmi/domains: the tree of knowledge domains, as administrators make it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from api.domains.audiences import domain_view
from api.routing import Caller, Served, admin_router, errors
from hmi.catalog import Audience, domains
from hmi.schemas import DomainChange, DomainCreate, DomainObject

router = admin_router("/v1/hmi/domains", "knowledge")


@router.post("", summary="Create a domain", responses=errors(404, 409))
def create_domain(services: Served, caller: Caller, body: DomainCreate) -> DomainObject:
    """Under `general` unless another parent is named. A lookup tries the domain first, then its ancestors.

    A private domain stays private to its owner for ever. No audience is wider than the parent's.
    """
    with services.database.session() as session:
        made = domains.create_domain(
            session,
            body.name,
            body.parent,
            owner=body.owner,
            audience=None if body.audience is None else Audience(body.audience),
            tenants=body.tenants,
        )
    return domain_view(made, caller)


@router.patch("/{name}", summary="Move a domain", responses=errors(404, 409))
def move_domain(
    services: Served,
    caller: Caller,
    name: Annotated[str, Path(description="Name of a domain.", examples=["movies"], max_length=64)],
    body: DomainChange,
) -> DomainObject:
    """Give it, and all that is under it, another parent. Lookups go the new way within seconds, while jobs run.

    Rows of a function that is not the domain's any more, because other deltas are above it now, are not used: they
    are computed on a miss until the next rebuild. A domain is not moved below one that fewer tenants may use.
    """
    with services.database.session() as session:
        moved = domains.move_domain(session, name, body.parent)
    return domain_view(moved, caller)
