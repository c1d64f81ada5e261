"""/v1/hmi/bases: base models that tenants' models stand on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, UploadFile

from api.base_upload import read_base
from api.dependencies import AdminRoute, Served, bearer
from api.schemas.common import Listing, errors
from api.schemas.knowledge import BaseObject
from api.schemas.tenants import NamePattern
from hmi.catalog import bases

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/hmi/bases",
    tags=["Administration: knowledge"],
    route_class=AdminRoute,
    dependencies=[Depends(bearer)],
    responses=errors(401, 403),
)


@router.post("", summary="Register a base model", responses=errors(409, 413, 507))
def register_base(
    services: Served,
    name: Annotated[str, Form(pattern=NamePattern, examples=["minilm-k3"])],
    files: Annotated[
        list[UploadFile],
        File(description="spec.json, model.safetensors and tokenizer.json; chat.json where there is one."),
    ],
) -> BaseObject:
    """Upload an hPLM. A name stands for one content for ever; the same content again changes nothing."""
    uploaded = read_base(files)
    artifact = services.artifacts.put(uploaded.streams)
    with services.database.session() as session:
        return BaseObject.from_row(bases.register_base(session, name, artifact, uploaded.spec))


@router.get("", summary="List base models")
def list_bases(services: Served) -> Listing[BaseObject]:
    """By name, each with its shapes and the number of its published knowledge tree."""
    with services.database.session(read_only=True) as session:
        return Listing(data=[BaseObject.from_row(row) for row in bases.list_bases(session)])
