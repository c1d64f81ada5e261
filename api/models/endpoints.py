"""/v1/models: what a request's `model` may name."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from api.routing import Caller, Served, errors, tenant_router
from hmi.catalog import RegisteredModel, models
from hmi.schemas import Listing, ModelObject

router = tenant_router("/v1/models", "Models")


@router.get("", summary="List models")
def list_models(services: Served, caller: Caller) -> Listing[ModelObject]:
    """Your models; an admin key sees every tenant's."""
    with services.database.session(read_only=True) as session:
        return Listing(data=[_view(model) for model in models.list_models(session, caller)])


# A path: the client sends the slash of `acme/sentiment` quoted, and the server unquotes it.
@router.get("/{model:path}", summary="Look at a model", responses=errors(404))
def retrieve_model(
    services: Served, caller: Caller, model: Annotated[str, Path(examples=["acme/sentiment"], max_length=256)]
) -> ModelObject:
    """One model by its full name."""
    with services.database.session(read_only=True) as session:
        return _view(models.get_model(session, caller, model))


def _view(model: RegisteredModel) -> ModelObject:
    return ModelObject(id=model.name, created=int(model.created_at), owned_by=model.tenant)
