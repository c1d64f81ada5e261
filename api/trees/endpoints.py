"""/v1/hmi/trees: published knowledge trees, their versions, and changing which one serves."""

from __future__ import annotations

from typing import Annotated

from fastapi import BackgroundTasks, Path, Query
from sqlalchemy.orm import Session

from api.routing import Served, admin_router, errors
from api.trees.views import view_tree, view_versions
from hmi.catalog import RegisteredBase, bases, trees
from hmi.errors import InvalidInput
from hmi.jobs import TaskName
from hmi.schemas import Listing, RebuildRequested, Rollback, TreeObject, TreeVersionObject

router = admin_router("/v1/hmi/trees", "knowledge")

BaseName = Annotated[str, Path(description="Name of a base model.", examples=["minilm-k3"], max_length=64)]


@router.get("", summary="List knowledge trees", responses=errors(404))
def list_trees(
    services: Served, base: Annotated[str | None, Query(description="Only this base model's.", max_length=64)] = None
) -> Listing[TreeObject]:
    """For each base model the published tree: its domains' tables and the lookups in them."""
    with services.database.session(read_only=True) as session:
        rows = bases.list_bases(session) if base is None else [bases.get_base(session, base)]
        return Listing(data=[view_tree(session, row) for row in rows])


@router.get("/{base}", summary="Look at a tree", responses=errors(404))
def retrieve_tree(services: Served, base: BaseName) -> TreeObject:
    """The published tree of one base model, and the progress of a running build."""
    with services.database.session(read_only=True) as session:
        return view_tree(session, bases.get_base(session, base))


@router.get("/{base}/versions", summary="List a tree's versions", responses=errors(404))
def list_versions(services: Served, base: BaseName) -> Listing[TreeVersionObject]:
    """Newest first, with each build's report; failed and running builds are listed too."""
    with services.database.session(read_only=True) as session:
        return Listing(data=view_versions(session, base_with_trees(session, base)))


@router.post("/{base}/rollback", summary="Serve an earlier version", responses=errors(404, 409))
def roll_back(services: Served, base: BaseName, body: Rollback | None = None) -> TreeObject:
    """Serve another version that is kept, by default the one before. Workers swap between batches.

    A running build is abandoned, and no rebuild is scheduled until one is requested, which starts from the version
    chosen here.
    """
    with services.database.session() as session:
        row = base_with_trees(session, base)
        trees.rollback(session, row.id, body.to if body else None, min_tenants=services.settings.tree_min_tenants)
        session.refresh(row)
        return view_tree(session, row)


@router.post("/{base}/rebuild", status_code=202, summary="Rebuild a tree", responses=errors(404))
def rebuild_tree(services: Served, background: BackgroundTasks, base: BaseName) -> RebuildRequested:
    """Request a new version from the counts so far; the old one serves until it is published.

    The version contains every count that was committed before this request. A build that runs already is followed by
    it; requests that arrive before it begins share it. A build that fails is repeated up to two times.
    """
    with services.database.session() as session:
        row = base_with_trees(session, base)
        number = trees.request_rebuild(session, row.id)
        building = next((running for base_id, running in trees.running_builds(session) if base_id == row.id), None)
    background.add_task(services.hint, TaskName.REBUILD_TREES, row.name)
    return RebuildRequested(base=row.name, number=number, building=building)


def base_with_trees(session: Session, name: str) -> RegisteredBase:
    """Raises `NotFound`, and `InvalidInput` for a base model with k = 0."""
    base = bases.get_base(session, name)
    if not bases.spec_of(base).k:
        raise InvalidInput(f"{base.name} has no tree: its k is 0", param="base")
    return base
