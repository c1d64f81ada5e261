"""What is left of a deleted tenant: rebuilds that remove it from trees, and a report of what remains where."""

from __future__ import annotations

from collections.abc import Sequence

from api.services import Services
from hmi.catalog import DeletedTenant, bases, trees
from hmi.schemas import KeptVersion, RebuildRequested, TenantPurge

_NOTES = (
    "Backups of the database and of the storage hold the tenant until they are replaced.",
    "Logs hold the tenant's name and ids; they never hold texts.",
    "Workers forget its rows in the miss cache when others take their place, and when they restart.",
)


def request_purge(services: Services, deleted: DeletedTenant, files_left: Sequence[str]) -> TenantPurge:
    """Request a rebuild of every base model's tree, and report what is left of the tenant."""
    rebuilds, versions = [], []
    with services.database.session() as session:
        for base in bases.list_bases(session):
            if base.tree_number is None:
                continue
            ready = trees.ready_versions(session, base.id)
            versions += [
                KeptVersion(base=base.name, number=each.number, served=each.number == base.tree_number)
                for each in sorted(ready, key=lambda each: each.number)
            ]
            number = trees.request_rebuild(session, base.id)
            building = next((running for base_id, running in trees.running_builds(session) if base_id == base.id), None)
            rebuilds.append(RebuildRequested(base=base.name, number=number, building=building))
    return TenantPurge(
        rebuilds=rebuilds,
        ngrams=trees.count_affected(services.database, deleted.bit),
        versions=versions,
        files_left=list(files_left),
        adapters_left=list(deleted.adapters),
        notes=list(_NOTES),
    )
