"""/v1/hmi/trees: published knowledge trees, their versions and their rebuilding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from sqlalchemy.orm import Session

from api.dependencies import AdminRoute, Served, bearer
from api.schemas.common import Listing, errors
from api.schemas.knowledge import DomainTableObject, RebuildStarted, TreeObject, TreeVersionObject
from hmi.catalog import bases, domains, trees
from hmi.catalog.tables import BaseModel, TreeVersion
from hmi.jobs.messages import TaskName, send

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/hmi/trees",
    tags=["Administration: knowledge"],
    route_class=AdminRoute,
    dependencies=[Depends(bearer)],
    responses=errors(401, 403),
)

BaseName = Annotated[str, Path(description="Name of a base model.", examples=["minilm-k2"], max_length=64)]


@router.get("", summary="List knowledge trees", responses=errors(404))
def list_trees(
    services: Served, base: Annotated[str | None, Query(description="Only this base model's.", max_length=64)] = None
) -> Listing[TreeObject]:
    """For each base model the published tree: what its domains hold and what lookups found there."""
    with services.database.session(read_only=True) as session:
        rows = bases.list_bases(session) if base is None else [bases.get_base(session, base)]
        return Listing(data=[_tree(session, row) for row in rows])


@router.get("/{base}/versions", summary="List a tree's versions", responses=errors(404))
def list_versions(services: Served, base: BaseName) -> Listing[TreeVersionObject]:
    """Newest first, those that failed or are being built among them."""
    with services.database.session(read_only=True) as session:
        rows = trees.versions(session, bases.get_base(session, base).id)
    return Listing(data=[_version(row) for row in rows])


@router.post("/{base}/rebuild", status_code=202, summary="Rebuild a tree", responses=errors(404))
def rebuild_tree(services: Served, base: BaseName) -> RebuildStarted:
    """Have a worker build a new version from the counts so far; the old one serves until it is published."""
    with services.database.session(read_only=True) as session:
        name = bases.get_base(session, base).name
    return RebuildStarted(task=send(services.broker, TaskName.REBUILD_TREES, name))


def _tree(session: Session, base: BaseModel) -> TreeObject:
    version = next((each for each in trees.versions(session, base.id) if each.number == base.tree_number), None)
    used = trees.usage(session, base.id, version.number if version else 0)
    report = dict(version.report) if version else {}
    built: Mapping[str, Any] = report.get("domains", {})
    tables = {}
    for name, parent in domains.parents(session).items():
        table, found = built.get(name, {}), used.get(name)
        tables[name] = DomainTableObject(
            parent=parent,
            entries=table.get("entries", 0),
            bytes=table.get("bytes", 0),
            lookups=found.lookups if found else 0,
            hits=found.hits if found else 0,
        )
    published_at = int(version.published_at) if version and version.published_at is not None else None
    return TreeObject(
        base=base.name,
        number=version.number if version else None,
        published_at=published_at,
        report=report,
        domains=tables,
    )


def _version(row: TreeVersion) -> TreeVersionObject:
    return TreeVersionObject(
        number=row.number,
        status=row.status,
        error=row.error,
        report=row.report,
        created_at=int(row.created_at),
        published_at=None if row.published_at is None else int(row.published_at),
    )
