"""Garbage collection of tree builds: folders, half-stored artifacts, tables that no version names any more.

Nothing of a running build is deleted, nor a table that a version of any base model's tree names.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog

from hmi.catalog import bases, garbage, trainings, trees
from hmi.errors import HmiError
from worker.lifecycle import describe
from worker.runtime import Runtime

_log = structlog.get_logger(__name__)


def build_owner(base_id: str, number: int) -> str:
    """The name under which a build stores artifacts."""
    return f"{base_id}-{number}"


def _builds_folder(cache_dir: Path) -> Path:
    """Where builds write on this machine: `<base id>/<number>/`."""
    return cache_dir / "builds"


def take_over_folder(cache_dir: Path, base_id: str, number: int) -> Path:
    """Return the folder of a build, with the finished part of the last interrupted build of the base on this machine.

    The old folder is moved, so that a stale builder finds nothing left to write to.
    """
    mine = _builds_folder(cache_dir) / base_id / str(number)
    others = [path for path in mine.parent.iterdir() if path != mine] if mine.parent.is_dir() else []
    for path in sorted(others, key=lambda each: each.stat().st_mtime, reverse=True):
        if mine.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(mine)
    mine.mkdir(parents=True, exist_ok=True)
    return mine


def collect_garbage(runtime: Runtime) -> None:
    """Fail the builds whose builders are gone, and delete what they and other failed builds have left."""
    with runtime.database.session() as session:
        failed = trees.fail_expired_builds(session)
    if failed:
        _log.warning("builds_expired", builds=failed)
    _delete_artifacts(runtime)
    _delete_folders(runtime)


def _delete_artifacts(runtime: Runtime) -> None:
    # Listed before the running builds: what begins to be stored after this listing is not touched.
    unfinished = {name: owner for name, owner in runtime.artifacts.unfinished().items() if owner}
    with runtime.database.session(read_only=True) as session:
        running = {build_owner(base_id, number) for base_id, number in trees.running_builds(session)}
        running |= {job_id for job_id, _ in trainings.leased(session)}
        unneeded = garbage.find_garbage(session)
    for name, owner in unfinished.items():
        if owner not in running:
            runtime.artifacts.abandon(name)
    for base_id, number, named in unneeded:
        try:
            for artifact in named:
                with runtime.database.session() as session:
                    garbage.delete_if_unneeded(session, artifact, runtime.artifacts.delete)
        except (HmiError, OSError) as error:
            _log.warning("tables_not_deleted", base=base_id, number=number, reason=describe(error))
            continue
        with runtime.database.session() as session:
            garbage.forget_tables(session, base_id, number)


def _delete_folders(runtime: Runtime) -> None:
    """Delete build folders of this machine, except those that the next build of the base model can resume from.

    The folder of a failed build is kept until a later version is published.
    """
    present = sorted(_builds_folder(runtime.settings.resolved_cache_dir).glob("*/*"))
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
