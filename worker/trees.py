"""Rebuilding a base model's knowledge tree: counts, plan, build beside, verify, publish, forget the oldest.

The old version serves until the pointer moves, and goes on serving where anything before that fails.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy.orm import Session

from hmi.catalog import bases, domains, frequencies, nodes, trees
from hmi.catalog.database import clock
from hmi.catalog.tables import BaseModel
from hmi.errors import Cancelled, Conflict, Corrupt, HmiError, NotFound
from hmi.knowledge.build import BuildReport, build_tree, verify_sample
from hmi.knowledge.builder import DomainCounts, TreePlan, plan_tree
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.rows import entry_bytes
from hmi.knowledge.table import Table
from hmi.knowledge.tree import KnowledgeTree
from hmi.spec import HPLMSpec
from worker.leases import Lease
from worker.logs import describe
from worker.runtime import Runtime
from worker.source import wanted_tree

__all__ = ["rebuild", "rebuild_all"]

_log = structlog.get_logger(__name__)

_KEPT_VERSIONS = 2
_SAMPLE_ROWS = 64  # of each table, recomputed before anybody looks up in it
_NODE_SILENCE_SECONDS = 120.0


def rebuild_all(runtime: Runtime) -> None:
    """Rebuild the tree of every base model that can have one and whose tree is old enough, one after the other."""
    with runtime.database.session(read_only=True) as session:
        oldest_fresh = clock(session) - runtime.settings.rebuild_seconds
        names = [
            base.name
            for base in bases.list_bases(session)
            if bases.spec_of(base).k > 0 and not _published_since(session, base, oldest_fresh)
        ]
    for name in names:
        if runtime.stopping.requested:
            return
        rebuild(runtime, name)


def _published_since(session: Session, base: BaseModel, moment: float) -> bool:
    """Whether somebody built the tree by hand a short while ago; the schedule need not do it again."""
    return any((version.published_at or 0) > moment for version in trees.versions(session, base.id))


def rebuild(runtime: Runtime, name: str) -> None:
    """Build and publish the next version of one base model's tree; what goes wrong is logged and recorded.

    Where a build of it is running already, that one will do.
    """
    log = _log.bind(base=name)
    try:
        with runtime.database.session() as session:
            base = bases.get_base(session, name)
            spec = bases.spec_of(base)
            if spec.k == 0:
                log.info("tree_not_needed")
                return
            number = trees.begin_build(session, base.id, runtime.settings.lease_seconds)
    except Conflict as error:
        log.info("tree_not_built", reason=error.message)
        return
    began = time.monotonic()
    try:
        with runtime.leases.build(base.id, number) as lease:
            _build_and_publish(runtime, base, spec, number, lease)
    except BaseException as error:  # noqa: BLE001 - the build must not stay open, whatever ended it
        log.error("tree_failed", number=number, reason=describe(error))
        with runtime.database.session() as session:
            trees.fail_build(session, base.id, number, describe(error))
        return
    log.info("tree_published", number=number, seconds=round(time.monotonic() - began, 3))
    runtime.source.refresh(runtime.engine)
    _forget_oldest(runtime, base)


def _build_and_publish(runtime: Runtime, base: BaseModel, spec: HPLMSpec, number: int, lease: Lease) -> None:
    began = time.monotonic()
    old = _old_tree(runtime, base, spec)
    plan = _plan(runtime, base, spec, old)

    def compute(keys: Keys) -> Any:
        return runtime.engine.compute_rows(base.artifact, keys)

    def progress(done: int, total: int) -> None:
        lease.check()
        if runtime.stopping.requested:
            raise Cancelled(f"the worker was stopped after {done} of {total} rows")

    # By base model, not by version: what a build that was cut short had finished is taken over by the next.
    folder = runtime.settings.resolved_cache_dir / "builds" / base.id
    report = build_tree(
        folder,
        plan,
        old,
        compute,
        function=base.artifact,
        row_dtype=spec.row_dtype,
        hidden_size=spec.hidden_size,
        progress=progress,
    )
    built = {domain: Table.open(folder / domain) for domain, keys in plan.tables.items() if len(keys)}
    try:
        for table in built.values():
            table.verify()
        verify_sample(built.values(), compute, _SAMPLE_ROWS)
    except Corrupt:
        shutil.rmtree(folder, ignore_errors=True)  # whole, but wrong: the next build shall not take it over
        raise
    tables = {domain: runtime.artifacts.put_folder(table.folder) for domain, table in built.items()}
    lease.check()
    with runtime.database.session() as session:
        trees.publish(session, base.id, number, tables, _report(report, plan, time.monotonic() - began))
    shutil.rmtree(folder, ignore_errors=True)


def _old_tree(runtime: Runtime, base: BaseModel, spec: HPLMSpec) -> KnowledgeTree | None:
    with runtime.database.session(read_only=True) as session:
        wanted = wanted_tree(session, base)
    if not wanted.tables:
        return None
    try:
        return runtime.source.open(base.artifact, spec, wanted)
    except (Corrupt, NotFound) as error:
        _log.warning("old_tree_not_usable", base=base.name, number=wanted.number, reason=error.message)
        return None


def _plan(runtime: Runtime, base: BaseModel, spec: HPLMSpec, old: KnowledgeTree | None) -> TreePlan:
    settings = runtime.settings
    runtime.flusher.flush()
    with runtime.database.session(read_only=True) as session:
        parents = domains.parents(session)
        counted = frequencies.load(session, base.id, half_life_seconds=settings.frequency_half_life_seconds)
    return plan_tree(
        {domain: DomainCounts(counts.ngrams, counts.weights) for domain, counts in counted.items()},
        parents,
        {domain: table.keys for domain, table in old.tables.items()} if old else {},
        spec.vocab_size,
        settings.tree_node_bytes,
        entry_bytes(spec.row_dtype, spec.hidden_size),
    )


def _report(report: BuildReport, plan: TreePlan, seconds: float) -> Mapping[str, Any]:
    return {
        "seconds": round(seconds, 3),
        "domains": {
            domain: {"parent": plan.parents[domain], **dataclasses.asdict(each)}
            for domain, each in report.domains.items()
        },
    }


def _forget_oldest(runtime: Runtime, base: BaseModel) -> None:
    """Trim the counts, and delete versions beyond the last two unless a worker still reads them."""
    settings = runtime.settings
    try:
        with runtime.database.session(read_only=True) as session:
            present = domains.list_domains(session)
        for domain in present:
            with runtime.database.session() as session:
                frequencies.trim(session, base.id, domain.id, settings.frequency_max_keys)
        with runtime.database.session() as session:
            keep = _kept_versions(session, base)
            unnamed = trees.forget_retired(session, base.id, keep)
        for artifact in unnamed:
            runtime.artifacts.delete(artifact)
    except HmiError as error:
        _log.warning("old_trees_left", base=base.name, reason=error.message)


def _kept_versions(session: Session, base: BaseModel) -> int:
    """How many of the newest versions to keep: two, or back to the oldest that a live worker reports."""
    read = {
        use["number"]
        for node in nodes.list_nodes(session, _NODE_SILENCE_SECONDS)
        for use in node.stats.get("trees", [])
        if use["base"] == base.artifact
    }
    ready = [version.number for version in trees.versions(session, base.id) if version.published_at is not None]
    oldest = max((place for place, number in enumerate(ready) if number in read), default=0)
    return max(_KEPT_VERSIONS, oldest + 1)
