"""Removing what builds of trees left behind: folders, half-stored artifacts, tables that no version needs any more.

Nothing of a build whose lease runs is touched, nor a table that a version of any base model's tree names.
"""

from __future__ import annotations

import shutil

import structlog

from hmi.catalog import bases, garbage, trainings, trees
from hmi.errors import HmiError
from worker.lifecycle import describe
from worker.runtime import Runtime
from worker.trees.monitor import build_owner, builds_folder

__all__ = ["sweep_builds"]

_log = structlog.get_logger(__name__)


def sweep_builds(runtime: Runtime) -> None:
    """Give up the builds whose builders are gone, and remove what they and others that failed have left."""
    with runtime.database.session() as session:
        failed = trees.fail_expired_builds(session)
    if failed:
        _log.warning("builds_given_up", builds=failed)
    _sweep_artifacts(runtime)
    _sweep_folders(runtime)


def _sweep_artifacts(runtime: Runtime) -> None:
    # Before what runs is looked up: what begins to be stored after this listing is left alone.
    unfinished = {name: owner for name, owner in runtime.artifacts.unfinished().items() if owner}
    with runtime.database.session(read_only=True) as session:
        running = {build_owner(base_id, number) for base_id, number in trees.running_builds(session)}
        running |= {job_id for job_id, _ in trainings.leased(session)}
        litter = garbage.find_garbage(session)
    for name, owner in unfinished.items():
        if owner not in running:
            runtime.artifacts.abandon(name)
    for base_id, number, named in litter:
        try:
            for artifact in named:
                with runtime.database.session() as session:
                    garbage.delete_if_unneeded(session, artifact, runtime.artifacts.delete)
        except (HmiError, OSError) as error:
            _log.warning("tables_left", base=base_id, number=number, reason=describe(error))
            continue
        with runtime.database.session() as session:
            garbage.forget_tables(session, base_id, number)


def _sweep_folders(runtime: Runtime) -> None:
    """Folders on this machine of builds that failed are kept for the next build of the base model, which goes on with
    them, until another machine has published one."""
    folders = builds_folder(runtime.settings.resolved_cache_dir)
    present = sorted(folders.glob("*/*")) if folders.is_dir() else []
    if not present:
        return
    with runtime.database.session(read_only=True) as session:
        known = {base.id: trees.ready_versions(session, base.id) for base in bases.list_bases(session)}
        running = trees.running_builds(session)
    for folder in present:
        base_id, number = folder.parent.name, int(folder.name) if folder.name.isdigit() else 0
        newest = max((version.number for version in known.get(base_id, [])), default=0)
        if (base_id, number) not in running and (base_id not in known or number <= newest):
            shutil.rmtree(folder, ignore_errors=True)
