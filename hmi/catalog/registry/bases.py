"""Base models: the hPLMs that tenants' models are based on."""

from __future__ import annotations

import json

from sqlalchemy import select
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml, insert_or, now
from hmi.catalog.registry.names import check_name
from hmi.catalog.schema import RegisteredBase, new_id
from hmi.errors import Conflict, NotFound
from hmi.spec import HPLMSpec


def register_base(session: Session, name: str, artifact: str, spec: HPLMSpec) -> RegisteredBase:
    """Give an artifact a name; repeating a registration changes nothing.

    A name means one artifact for ever: other weights need another name, since adapters, tables and n-gram counts belong
    to these. Raises `Conflict`, `InvalidInput`.
    """
    values = {
        "id": new_id("base_"),
        "name": check_name(name),
        "artifact": artifact,
        "spec": json.loads(spec.to_json()),
        "created_at": now(),
    }
    execute_dml(session, insert_or(session, RegisteredBase).values(**values).on_conflict_do_nothing())
    base = get_base(session, name)
    if base.artifact != artifact:
        raise Conflict(f"the base model {name} stands for other weights ({base.artifact[:12]})", param="name")
    return base


def get_base(session: Session, name: str) -> RegisteredBase:
    """Raises `NotFound`."""
    base = session.scalars(select(RegisteredBase).where(RegisteredBase.name == name)).one_or_none()
    if base is None:
        raise NotFound(f"there is no base model {name[:80]!r}", code="base_not_found", param="base")
    return base


def list_bases(session: Session) -> list[RegisteredBase]:
    """All base models by name."""
    return list(session.scalars(select(RegisteredBase).order_by(RegisteredBase.name)))


def spec_of(base: RegisteredBase) -> HPLMSpec:
    """Raises `Corrupt`."""
    return HPLMSpec.from_json(json.dumps(base.spec))
