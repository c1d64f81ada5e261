"""The steps of one build of a tree, from catalog, artifacts and engine to stored tables."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from hmi.catalog import RegisteredBase, bases, frequencies, models, trees
from hmi.errors import Corrupt, NotFound
from hmi.knowledge import NO_KEYS, Function, Keys
from hmi.knowledge.build import BuildReport, build_tree, verify_sample
from hmi.knowledge.counts import DomainCounts, SharingRule
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.plan import BuildProgress, PreviousTree, TreePlan, plan_tree
from hmi.knowledge.store import MANIFEST_FILE, Manifest, Table, entry_bytes
from worker.lifecycle import BuildPoint, Lease, fail_at
from worker.runtime import Runtime
from worker.serving import desired_tree
from worker.trees.garbage import build_owner, take_over_folder
from worker.trees.monitor import BuildMonitor

_log = structlog.get_logger(__name__)

_SAMPLE_ROWS = 64  # of each table, recomputed before it is published


class TreeBuildJob:
    """One build, of the domains and deltas that exist when it begins: a later change is for the next build."""

    def __init__(self, runtime: Runtime, base: RegisteredBase, number: int, lease: Lease) -> None:
        self._runtime = runtime
        self._base = base
        self._spec = bases.spec_of(base)
        self._number = number
        self._monitor = BuildMonitor(runtime, base.id, number, lease)
        with runtime.database.session(read_only=True) as session:
            self._desired = desired_tree(session, base)
            served = [each for each in trees.versions(session, base.id) if each.number == self._desired.number]
        self._old_report: Mapping[str, Any] = served[0].report if served else {}
        self._old_domains: Mapping[str, Any] = self._old_report.get("domains", {})
        self._unread: set[str] = set()  # domains whose old table is not usable

    def run(self) -> Mapping[str, Any]:
        """Build the version and publish it; return its report."""
        began = time.monotonic()
        old = self._read_old()
        plan = self._plan(old)
        fail_at(BuildPoint.COUNTED)
        folder = take_over_folder(self._runtime.settings.resolved_cache_dir, self._base.id, self._number)
        built = build_tree(
            folder,
            plan,
            old,
            self._compute,
            row_dtype=self._spec.row_dtype,
            hidden_size=self._spec.hidden_size,
            tolerance=self._runtime.settings.tree_tolerance,
            progress=self._monitor,
        )
        fail_at(BuildPoint.WRITTEN)
        self._verify(folder, plan)
        tables = self._store(folder, plan, old)
        self._monitor.check()
        fail_at(BuildPoint.STORED)
        report = self._report(built, plan) | {"seconds": round(time.monotonic() - began, 3)}
        with self._runtime.database.session() as session:
            trees.publish(session, self._base.id, self._number, tables, report)
        fail_at(BuildPoint.PUBLISHED)
        shutil.rmtree(folder, ignore_errors=True)
        return report

    def _read_old(self) -> PreviousTree:
        """Open the served version's tables; a damaged one, or one of another function, is left out."""
        opened = self._runtime.source.open(self._spec, self._desired, self._monitor.step, patient=False)
        for domain, reason in opened.missing.items():
            _log.warning("old_table_not_usable", base=self._base.name, domain=domain, reason=reason)
            self._unread.add(domain)
        return PreviousTree.read(
            opened.tree,
            tolerance=self._runtime.settings.tree_tolerance,
            built_tolerance=self._old_report.get("tolerance"),
            alias_shares={
                domain: each["alias_share"]
                for domain, each in self._old_domains.items()
                if each.get("alias_share") is not None
            },
            built_parents={domain: each.get("parent") for domain, each in self._old_domains.items()},
            progress=self._monitor,
        )

    def _plan(self, old: PreviousTree) -> TreePlan:
        settings = self._runtime.settings
        self._runtime.flusher.flush()
        self._monitor(BuildProgress("plan", 0, 0))
        # Longer than a worker keeps counts in memory.
        settled_seconds = settings.flush_seconds + settings.lease_seconds
        trees.forget_tenants(self._runtime.database, settled_seconds=settled_seconds, progress=self._monitor.step)
        counted = frequencies.load(self._runtime.database, self._base.id, progress=self._monitor.step)
        ngrams = sum(len(counts.ngrams) for counts in counted.values())
        self._monitor(BuildProgress("plan", ngrams, ngrams))
        with self._runtime.database.session(read_only=True) as session:
            # Of models, not of lookups: what a tenant asks must not change what others' tables hold.
            shares = models.approximate_shares(session, self._base.id)
        # A domain with models under `backoff` has an entry even without counts: whether any tenant asked is not seen.
        nothing = frequencies.DomainFrequencies(NO_KEYS, np.empty(0), NO_KEYS)
        entries = {domain: counted.get(domain, nothing) for domain in [*counted, *shares]}
        return plan_tree(
            {
                domain: DomainCounts(
                    counts.ngrams,
                    counts.weights,
                    approximate_share=shares.get(domain, 0.0),
                    tenants=counts.tenants,
                )
                for domain, counts in entries.items()
                if domain in self._desired.parents
            },
            self._desired.parents,
            self._desired.functions,
            old.held,
            self._spec.vocab_size,
            settings.tree_node_bytes,
            entry_bytes(self._spec.row_dtype, self._spec.hidden_size),
            backoff=old.backoff.with_mean_errors(self._estimate_errors()),
            rule=SharingRule(settings.tree_min_tenants, self._desired.scopes, self._desired.owners),
        )

    def _verify(self, folder: Path, plan: TreePlan) -> None:
        """Raises `Corrupt` if a sample of the rows differs from what the model computes."""
        built = {domain: Table.open(folder / domain) for domain in _stored(plan)}
        functions = {domain: function.digest for domain, function in plan.functions.items()}
        tree = KnowledgeTree(self._number, plan.parents, built, self._spec.row_dtype, self._spec.hidden_size, functions)
        self._monitor(BuildProgress("verify", 0, len(built) * _SAMPLE_ROWS))
        try:
            verify_sample(
                tree,
                plan.functions,
                partial(self._compute, fresh=True),
                _SAMPLE_ROWS,
                tolerance=self._runtime.settings.tree_tolerance,
            )
        except Corrupt:
            shutil.rmtree(folder, ignore_errors=True)  # complete, but wrong: the next build must not resume from it
            raise

    def _store(self, folder: Path, plan: TreePlan, old: PreviousTree) -> dict[str, str]:
        """Store every table as an artifact and return them by domain; an unchanged one is the old version's."""
        stored = _stored(plan)
        tables: dict[str, str] = {}
        for done, domain in enumerate(stored):
            self._monitor(BuildProgress("store", done, len(stored)))
            tables[domain] = self._reuse(folder, domain, old) or self._put(folder, domain)
        return tables

    def _report(self, report: BuildReport, plan: TreePlan) -> dict[str, Any]:
        """Return the report that the catalog stores."""
        domains = {
            domain: {
                "parent": plan.parents[domain],
                "function": plan.functions[domain].digest,
                **dataclasses.asdict(domain_report),
                **self._dropped(domain),
            }
            for domain, domain_report in report.domains.items()
        }
        return {
            "tolerance": report.tolerance,
            "min_tenants": self._runtime.settings.tree_min_tenants,
            "computed": report.computed,
            "waited_seconds": round(self._monitor.waited_seconds, 3),  # for jobs
            "bytes": sum(each["bytes"] for each in domains.values()),
            "bytes_before": sum(each["bytes_before"] for each in domains.values()),
            "domains": domains,
        }

    def _dropped(self, domain: str) -> dict[str, int]:
        """Counts of an old table that the build did not see, such as one of another function."""
        before = self._old_domains.get(domain)
        if domain not in self._unread or before is None:
            return {}
        return {"dropped": before["entries"] + before["aliases"], "bytes_before": before["bytes"]}

    def _compute(self, function: Function, keys: Keys, *, fresh: bool = False) -> NDArray[np.float32]:
        rows = self._runtime.engine.compute_rows(function.base, keys, function.delta, fresh=fresh)
        self._monitor.step()
        return rows

    def _estimate_errors(self) -> dict[str, float]:
        """Return the error of estimated rows, by domain; none for domains that estimate no rows."""
        engine = self._runtime.engine
        by_function = {
            function: engine.estimate_error(function.base, function.delta)
            for function in set(self._desired.functions.values())
        }
        errors = {domain: by_function[function] for domain, function in self._desired.functions.items()}
        return {domain: error for domain, error in errors.items() if error is not None}

    def _reuse(self, folder: Path, domain: str, old: PreviousTree) -> str | None:
        """Return the old version's artifact if the new table is the same, byte for byte."""
        before, artifact = old.tables.get(domain), self._desired.tables.get(domain)
        if before is None or artifact is None:
            return None
        if (before.folder / MANIFEST_FILE).read_bytes() != (folder / domain / MANIFEST_FILE).read_bytes():
            return None
        self._announce(domain, artifact)
        try:
            self._runtime.artifacts.folder(artifact)
        except (NotFound, Corrupt):
            return None
        return artifact

    def _put(self, folder: Path, domain: str) -> str:
        """Raises `Corrupt` if the stored files are not those that were built."""

        def announce(digest: str) -> None:
            self._announce(domain, digest)
            fail_at(BuildPoint.STORING)

        owner = build_owner(self._base.id, self._number)
        artifacts = self._runtime.artifacts
        digest = artifacts.put_folder(folder / domain, owner=owner, announce=announce, progress=self._monitor.step)
        built = Manifest.read(folder / domain).files
        stored = {file.name: file.sha256 for file in artifacts.files(digest)}
        for name, check in built.items():
            if stored.get(name) != check.sha256:
                shutil.rmtree(folder, ignore_errors=True)
                raise Corrupt(f"{folder / domain / name} was changed after it was written")
        return digest

    def _announce(self, domain: str, artifact: str) -> None:
        with self._runtime.database.session() as session:
            trees.register_artifact(session, self._base.id, self._number, domain, artifact)


def _stored(plan: TreePlan) -> list[str]:
    return [domain for domain, keys in plan.tables.items() if len(keys)]
