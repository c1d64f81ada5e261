"""/v1/hmi/domains: the tree of knowledge domains."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from api.routing import Served, admin_router, errors
from hmi.catalog import domains
from hmi.schemas import DomainChange, DomainCreate, DomainObject, Listing

router = admin_router("/v1/hmi/domains", "knowledge")


@router.post("", summary="Create a domain", responses=errors(404, 409))
def create_domain(services: Served, body: DomainCreate) -> DomainObject:
    """Under `general` unless another parent is named. A lookup tries the domain first, then its ancestors."""
    with services.database.session() as session:
        return DomainObject.model_validate(domains.create_domain(session, body.name, body.parent))


@router.get("", summary="List domains")
def list_domains(services: Served) -> Listing[DomainObject]:
    """By name, each with its parent."""
    with services.database.session(read_only=True) as session:
        return Listing(data=[DomainObject.model_validate(domain) for domain in domains.list_domains(session)])


@router.patch("/{name}", summary="Move a domain", responses=errors(404))
def move_domain(
    services: Served,
    name: Annotated[str, Path(description="Name of a domain.", examples=["movies"], max_length=64)],
    body: DomainChange,
) -> DomainObject:
    """Give it, and all that is under it, another parent. Lookups go the new way within seconds, while jobs run.

    Rows of a function that is not the domain's any more, because other deltas are above it now, are not used: they
    are computed on a miss until the next rebuild.
    """
    with services.database.session() as session:
        return DomainObject.model_validate(domains.move_domain(session, name, body.parent))
