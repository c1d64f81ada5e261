"""TreeBuildJob a base model's knowledge tree: counts, plan, build beside, verify, publish, forget the oldest.

The old version serves until the pointer moves, and goes on serving where anything before that fails.
"""

from __future__ import annotations

import shutil
import time

import structlog
from sqlalchemy.orm import Session

from hmi.catalog import RegisteredBase, bases, database_time, deltas, garbage, nodes, trees
from hmi.errors import Cancelled, Conflict, HmiError
from hmi.jobs import TaskName, send
from hmi.spec import HPLMSpec
from worker.lifecycle import BuildPoint, Lease, describe, fail_at
from worker.runtime import Runtime
from worker.trees.build_job import TreeBuildJob
from worker.trees.garbage import sweep_builds
from worker.trees.monitor import BuildMonitor, take_over

__all__ = ["rebuild", "rebuild_all", "send_requested"]

_log = structlog.get_logger(__name__)

_KEPT_VERSIONS = 2
_NODE_SILENCE_SECONDS = 120.0


def rebuild_all(runtime: Runtime) -> None:
    """Rebuild the tree of every base model that can have one and is due, one after the other."""
    with runtime.database.session(read_only=True) as session:
        oldest_fresh = database_time(session) - runtime.settings.rebuild_seconds
        names = [
            base.name
            for base in bases.list_bases(session)
            if bases.spec_of(base).k > 0 and _is_due(session, base, oldest_fresh)
        ]
    for name in names:
        if runtime.stopping.requested:
            return
        rebuild(runtime, name)


def _is_due(session: Session, base: RegisteredBase, oldest_fresh: float) -> bool:
    if trees.is_rolled_back(session, base.id):
        _log.info("tree_left_alone", base=base.name, reason="an earlier version was chosen; rebuild it by hand")
        return False
    newest = next(iter(trees.ready_versions(session, base.id)), None)
    if newest is None or (newest.published_at or 0.0) <= oldest_fresh:
        return True
    # A recent version is enough, unless a delta changed since its build began: it has the deltas of its beginning.
    return any(delta.created_at > newest.created_at for delta in deltas.list_deltas(session, base.id))


def send_requested(runtime: Runtime, name: str | None = None) -> None:
    """Send a message for each open rebuild request, or that of one base model, unless a build of it runs."""
    with runtime.database.session(read_only=True) as session:
        waiting = [each for each in trees.open_requests(session) if name in (None, each)]
    for each in waiting:
        send(runtime.client, TaskName.REBUILD_TREES, each)


def rebuild(runtime: Runtime, name: str, *, only_requested: bool = False) -> None:
    """Build and publish the next version of one base model's tree; what goes wrong is logged and recorded.

    Does nothing while a build of it runs. A request that arrived during this build is sent again at its end.

    Args:
        only_requested: Do nothing either unless a request is open: messages may be late or duplicates.
    """
    log = _log.bind(base=name)
    try:
        with runtime.database.session() as session:
            base = trees.lock_base(session, bases.get_base(session, name).id)
            spec = bases.spec_of(base)
            if spec.k == 0:
                log.info("tree_not_needed")
                return
            if only_requested and trees.requested_version(session, base.id) is None:
                log.info("tree_not_requested")
                return
            number = trees.begin_build(session, base.id, runtime.settings.lease_seconds)
    except Conflict as error:
        log.info("tree_not_built", reason=error.message)
        return
    began = time.monotonic()
    try:
        with runtime.leases.build(base.id, number) as lease:
            fail_at(BuildPoint.BEGUN)
            _build_and_publish(runtime, base, spec, number, lease)
    except BaseException as error:  # noqa: BLE001 - the build must not stay open, whatever ended it
        log.error("tree_failed", number=number, reason=describe(error))
        with runtime.database.session() as session:
            count_failure = not isinstance(error, Cancelled)
            trees.fail_build(session, base.id, number, describe(error), count_failure=count_failure)
            requested = trees.requested_version(session, base.id)
        # A request that this build should have answered waits for the next `reconcile`.
        if requested is not None and requested > number:
            _send_next(runtime, name)
        _sweep(runtime)
        return
    log.info("tree_published", number=number, seconds=round(time.monotonic() - began, 3))
    _send_next(runtime, name)
    runtime.refresh_trees()
    _forget_oldest(runtime, base)
    _sweep(runtime)


def _build_and_publish(runtime: Runtime, base: RegisteredBase, spec: HPLMSpec, number: int, lease: Lease) -> None:
    began = time.monotonic()
    watch = BuildMonitor(runtime, base.id, number, lease)
    rebuilding = TreeBuildJob(runtime, base, spec, number, watch)
    old = rebuilding.read_old()
    plan = rebuilding.plan(old)
    fail_at(BuildPoint.COUNTED)
    folder = take_over(runtime.settings.resolved_cache_dir, base.id, number)
    report = rebuilding.build(folder, plan, old)
    fail_at(BuildPoint.WRITTEN)
    rebuilding.verify(folder, plan)
    tables = rebuilding.store(folder, plan, old)
    watch.check()
    fail_at(BuildPoint.STORED)
    said = rebuilding.describe(report, plan) | {"seconds": round(time.monotonic() - began, 3)}
    with runtime.database.session() as session:
        trees.publish(session, base.id, number, tables, said)
    fail_at(BuildPoint.PUBLISHED)
    shutil.rmtree(folder, ignore_errors=True)


def _send_next(runtime: Runtime, name: str) -> None:
    try:
        send_requested(runtime, name)
    except HmiError as error:
        _log.warning("rebuild_not_sent", base=name, reason=describe(error))  # `reconcile` sends it


def _sweep(runtime: Runtime) -> None:
    try:
        sweep_builds(runtime)
    except (HmiError, OSError) as error:
        _log.warning("builds_not_swept", reason=describe(error))


def _forget_oldest(runtime: Runtime, base: RegisteredBase) -> None:
    """Give up versions beyond the last two unless a worker still reads them; the sweep deletes their tables."""
    try:
        with runtime.database.session() as session:
            unnamed = garbage.retire_versions(session, base.id, _kept_versions(session, base))
        for artifact in unnamed:
            runtime.source.forget(artifact)
    except (HmiError, OSError) as error:
        _log.warning("old_trees_left", base=base.name, reason=describe(error))


def _kept_versions(session: Session, base: RegisteredBase) -> int:
    """How many of the versions that were put into service last to keep: two, or back to the oldest that a live worker
    reports."""
    read = {
        use["number"]
        for node in nodes.list_nodes(session, _NODE_SILENCE_SECONDS)
        for use in node.stats.get("trees", [])
        if use["base"] == base.artifact
    }
    ready = [version.number for version in trees.ready_versions(session, base.id)]
    oldest = max((place for place, number in enumerate(ready) if number in read), default=0)
    return max(_KEPT_VERSIONS, oldest + 1)
