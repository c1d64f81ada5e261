"""/v1/hmi/bases: base models that tenants' models are built on."""

from __future__ import annotations

from typing import Annotated

from fastapi import File, Form, UploadFile

from api.bases.upload import read_base
from api.routing import Served, admin_router, errors
from hmi.catalog import RegisteredBase, bases
from hmi.schemas import NAME_PATTERN, BaseObject, Listing

router = admin_router("/v1/hmi/bases", "knowledge")


@router.post("", summary="Register a base model", responses=errors(409, 413, 507))
def register_base(
    services: Served,
    name: Annotated[str, Form(pattern=NAME_PATTERN, examples=["minilm-k3"])],
    files: Annotated[
        list[UploadFile],
        File(description="spec.json, model.safetensors and tokenizer.json; chat.json where there is one."),
    ],
) -> BaseObject:
    """Upload an hPLM. A name stands for one content for ever; the same content again changes nothing."""
    uploaded = read_base(files)
    artifact = services.artifacts.put(uploaded.streams)
    with services.database.session() as session:
        return _view(bases.register_base(session, name, artifact, uploaded.spec))


@router.get("", summary="List base models")
def list_bases(services: Served) -> Listing[BaseObject]:
    """By name, each with its shapes and the number of its published knowledge tree."""
    with services.database.session(read_only=True) as session:
        return Listing(data=[_view(row) for row in bases.list_bases(session)])


def _view(base: RegisteredBase) -> BaseObject:
    return BaseObject(
        id=base.id,
        name=base.name,
        artifact=base.artifact,
        spec=base.spec,
        tree=base.tree_number,
        created_at=int(base.created_at),
    )
