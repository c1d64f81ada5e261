"""/v1/models: what a request's `model` may name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from api.dependencies import AuthenticatedRoute, Caller, Served, bearer
from api.schemas.common import Listing, errors
from api.schemas.models import ModelObject
from hmi.catalog import models

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/models",
    tags=["Models"],
    route_class=AuthenticatedRoute,
    dependencies=[Depends(bearer)],
    responses=errors(401),
)


@router.get("", summary="List models")
def list_models(services: Served, caller: Caller) -> Listing[ModelObject]:
    """Your models; an admin key sees every tenant's."""
    with services.database.session(read_only=True) as session:
        return Listing(data=[ModelObject.from_served(model) for model in models.list_models(session, caller)])


# A path: the client sends the slash of `acme/sentiment` quoted, and the server unquotes it.
@router.get("/{model:path}", summary="Look at a model", responses=errors(404))
def retrieve_model(
    services: Served, caller: Caller, model: Annotated[str, Path(examples=["acme/sentiment"], max_length=256)]
) -> ModelObject:
    """One model by its full name."""
    with services.database.session(read_only=True) as session:
        return ModelObject.from_served(models.get_model(session, caller, model))
