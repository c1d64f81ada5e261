"""Rebuilding a base model's knowledge tree: counts, plan, build beside, verify, publish, retire the oldest.

The old version serves until the pointer moves, and keeps serving if anything before that fails.
"""

from __future__ import annotations

import time

import structlog
from sqlalchemy.orm import Session

from hmi.catalog import Database, RegisteredBase, bases, database_time, deltas, garbage, nodes, trees
from hmi.errors import Cancelled, Conflict, HmiError
from hmi.jobs import TaskName, send
from worker.lifecycle import BuildPoint, describe, fail_at, log_errors
from worker.runtime import Runtime
from worker.trees.build_job import TreeBuildJob
from worker.trees.garbage import collect_garbage

_log = structlog.get_logger(__name__)

_KEPT_VERSIONS = 2
_NODE_SILENCE_SECONDS = 120.0


def claim_period(database: Database, rebuild_seconds: float) -> bool:
    """Return True to one caller in each period of the database's clock, however many beats and workers ask."""
    with database.session() as session:
        tick = int(database_time(session) // rebuild_seconds)
        return nodes.claim_tick(session, TaskName.REBUILD_TREES.value, tick)


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
        _log.info("tree_not_due", base=base.name, reason="it was rolled back; request a rebuild")
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
    """Build and publish the next version of one base model's tree; an error is logged and recorded.

    Does nothing while a build of it runs, nor with `only_requested` unless a request is open: messages may be late or
    duplicates. A request that arrived during this build is sent again at its end.
    """
    log = _log.bind(base=name)
    try:
        with runtime.database.session() as session:
            base = trees.lock_base(session, bases.get_base(session, name).id)
            if bases.spec_of(base).k == 0 or (only_requested and trees.requested_version(session, base.id) is None):
                log.info("tree_not_needed")
                return
            number = trees.begin_build(session, base.id, runtime.settings.lease_seconds)
    except Conflict as error:
        log.info("tree_not_built", reason=error.message)
        return
    began = time.monotonic()

    def extend(session: Session, lease_seconds: float) -> bool:
        return trees.extend_build(session, base.id, number, lease_seconds)

    try:
        with runtime.leases.hold(f"tree {number} of {base.id}", extend) as lease:
            fail_at(BuildPoint.BEGUN)
            report = TreeBuildJob(runtime, base, number, lease).run()
    except BaseException as error:  # noqa: BLE001 - whatever the error, the build must not stay open
        log.error("tree_failed", number=number, reason=describe(error))
        with runtime.database.session() as session:
            count_failure = not isinstance(error, Cancelled)
            trees.fail_build(session, base.id, number, describe(error), count_failure=count_failure)
            requested = trees.requested_version(session, base.id)
        # A request that this build should have answered waits for the next `reconcile`.
        send_next = requested is not None and requested > number
    else:
        left_out = {kind: sum(each[kind] for each in report["domains"].values()) for kind in ("waiting", "unknown")}
        log.info("tree_published", number=number, seconds=round(time.monotonic() - began, 3), **left_out)
        runtime.refresh_trees()
        with log_errors(log, "versions_not_retired", HmiError, OSError):
            _retire_oldest(runtime, base)
        send_next = True
    if send_next:
        with log_errors(log, "rebuild_not_sent", HmiError):  # `reconcile` sends it
            send_requested(runtime, name)
    with log_errors(log, "garbage_not_collected", HmiError, OSError):
        collect_garbage(runtime)


def _retire_oldest(runtime: Runtime, base: RegisteredBase) -> None:
    """Retire versions beyond the last two unless a worker still reads them; `collect_garbage` deletes their tables."""
    with runtime.database.session() as session:
        read = {
            use["number"]
            for node in nodes.list_nodes(session, _NODE_SILENCE_SECONDS)
            for use in node.stats.get("trees", [])
            if use["base"] == base.artifact
        }
        ready = [version.number for version in trees.ready_versions(session, base.id)]
        oldest = max((index for index, number in enumerate(ready) if number in read), default=0)
        unnamed = garbage.retire_versions(session, base.id, max(_KEPT_VERSIONS, oldest + 1))
    for artifact in unnamed:
        runtime.source.forget(artifact)
