"""/v1/hmi/nodes: the workers, and where adapters lie in them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api.dependencies import AdminRoute, Served, bearer
from api.schemas.common import Listing, errors
from api.schemas.operations import NodeObject
from hmi.catalog import nodes

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/hmi/nodes",
    tags=["Administration: operation"],
    route_class=AdminRoute,
    dependencies=[Depends(bearer)],
    responses=errors(401, 403),
)


@router.get("", summary="List worker nodes")
def list_nodes(
    services: Served,
    seen_within_seconds: Annotated[
        float, Query(gt=0, le=30 * 24 * 3600, description="Longer silent ones are left out.")
    ] = 120,
) -> Listing[NodeObject]:
    """Worker processes that reported lately, with what their engines say of themselves."""
    with services.database.session(read_only=True) as session:
        rows = nodes.list_nodes(session, seen_within_seconds)
    return Listing(data=[NodeObject.from_row(row) for row in rows])
