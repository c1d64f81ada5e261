"""The steps of one build of a tree, each with its own view on catalog, artifacts and engine."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from hmi.catalog import RegisteredBase, frequencies, models, trees
from hmi.errors import Corrupt, NotFound
from hmi.knowledge import Function, Keys
from hmi.knowledge.build import BuildReport, build_tree, verify_sample
from hmi.knowledge.counts import DomainCounts
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.plan import BuildProgress, PreviousTree, TreePlan, plan_tree
from hmi.knowledge.store import MANIFEST_FILE, Manifest, Table, entry_bytes
from hmi.spec import HPLMSpec
from worker.lifecycle import BuildPoint, fail_at
from worker.runtime import Runtime
from worker.serving import wanted_tree
from worker.trees.monitor import BuildMonitor, build_owner

__all__ = ["TreeBuildJob"]

_log = structlog.get_logger(__name__)

_LEAST_SHARE = 0.05  # of a domain's lookups, where any of its models is served under `backoff`
_SAMPLE_ROWS = 64  # of each table, recomputed before anybody looks up in it


class TreeBuildJob:
    """One build. Domains and deltas are those of its beginning: what changes later is the next build's."""

    def __init__(
        self, runtime: Runtime, base: RegisteredBase, spec: HPLMSpec, number: int, watch: BuildMonitor
    ) -> None:
        self._runtime = runtime
        self._base = base
        self._spec = spec
        self._number = number
        self._watch = watch
        with runtime.database.session(read_only=True) as session:
            self._wanted = wanted_tree(session, base)
            served = [each for each in trees.versions(session, base.id) if each.number == self._wanted.number]
            self._old_report: Mapping[str, Any] = served[0].report if served else {}
            self._old_tables = dict(self._wanted.tables)
        self._unread: set[str] = set()  # domains whose old table was not opened

    def read_old(self) -> PreviousTree:
        """What can be built from; what is damaged, or was computed by what is no domain's function any more, cannot."""
        opened = self._runtime.source.open(self._spec, self._wanted, self._watch.step, patient=False)
        for domain, reason in opened.missing.items():
            _log.warning("old_table_not_usable", base=self._base.name, domain=domain, reason=reason)
            self._unread.add(domain)
        return PreviousTree.read(
            opened.tree,
            tolerance=self._runtime.settings.tree_tolerance,
            built_tolerance=self._old_report.get("tolerance"),
            alias_shares={
                domain: each["alias_share"]
                for domain, each in self._old_report.get("domains", {}).items()
                if each.get("alias_share") is not None
            },
            built_parents={domain: each.get("parent") for domain, each in self._old_report.get("domains", {}).items()},
            progress=self._watch,
        )

    def plan(self, old: PreviousTree) -> TreePlan:
        settings = self._runtime.settings
        self._runtime.flusher.flush()
        self._watch(BuildProgress("plan", 0, 0))
        counted = frequencies.load(self._runtime.database, self._base.id, progress=self._watch.step)
        ngrams = sum(len(counts.ngrams) for counts in counted.values())
        self._watch(BuildProgress("plan", ngrams, ngrams))
        shares = self._approximate_shares()
        return plan_tree(
            {
                domain: DomainCounts(counts.ngrams, counts.weights, approximate_share=shares.get(domain, 0.0))
                for domain, counts in counted.items()
                if domain in self._wanted.parents
            },
            self._wanted.parents,
            self._wanted.functions,
            old.held,
            self._spec.vocab_size,
            settings.tree_node_bytes,
            entry_bytes(self._spec.row_dtype, self._spec.hidden_size),
            backoff=old.backoff.with_mean_errors(self._estimate_errors()),
        )

    def build(self, folder: Path, plan: TreePlan, old: PreviousTree) -> BuildReport:
        return build_tree(
            folder,
            plan,
            old,
            self._compute,
            row_dtype=self._spec.row_dtype,
            hidden_size=self._spec.hidden_size,
            tolerance=self._runtime.settings.tree_tolerance,
            progress=self._watch,
        )

    def verify(self, folder: Path, plan: TreePlan) -> None:
        """Raises `Corrupt` where a sample of the rows is not what the model gives."""
        built = {domain: Table.open(folder / domain) for domain in _stored(plan)}
        functions = {domain: function.digest for domain, function in plan.functions.items()}
        tree = KnowledgeTree(self._number, plan.parents, built, self._spec.row_dtype, self._spec.hidden_size, functions)
        self._watch(BuildProgress("verify", 0, len(built) * _SAMPLE_ROWS))
        try:
            verify_sample(
                tree,
                plan.functions,
                self._compute_afresh,
                _SAMPLE_ROWS,
                tolerance=self._runtime.settings.tree_tolerance,
            )
        except Corrupt:
            shutil.rmtree(folder, ignore_errors=True)  # whole, but wrong: the next build shall not take it over
            raise

    def store(self, folder: Path, plan: TreePlan, old: PreviousTree) -> dict[str, str]:
        """Make an artifact of every table; gives them by domain. One that did not change is the old version's."""
        stored = _stored(plan)
        tables: dict[str, str] = {}
        for done, domain in enumerate(stored):
            self._watch(BuildProgress("store", done, len(stored)))
            tables[domain] = self._kept(folder, domain, old) or self._put(folder, domain)
        return tables

    def describe(self, report: BuildReport, plan: TreePlan) -> dict[str, Any]:
        """What the catalog keeps of the build."""
        domains = {
            domain: {
                "parent": plan.parents[domain],
                "function": plan.functions[domain].digest,
                **dataclasses.asdict(domain_report),
                **self._gone_whole(domain),
            }
            for domain, domain_report in report.domains.items()
        }
        return {
            "tolerance": report.tolerance,
            "computed": report.computed,
            "waited_seconds": round(self._watch.waited_seconds, 3),  # for jobs
            "bytes": sum(each["bytes"] for each in domains.values()),
            "bytes_before": sum(each["bytes_before"] for each in domains.values()),
            "domains": domains,
        }

    def _gone_whole(self, domain: str) -> dict[str, int]:
        """What the build cannot know of an old table that it was not given, such as one of another function."""
        before = self._old_report.get("domains", {}).get(domain)
        if domain not in self._unread or before is None:
            return {}
        return {"dropped": before["entries"] + before["aliases"], "bytes_before": before["bytes"]}

    def _compute(self, function: Function, keys: Keys) -> NDArray[np.float32]:
        rows = self._runtime.engine.compute_rows(function.base, keys, function.delta)
        self._watch.step()
        return rows

    def _compute_afresh(self, function: Function, keys: Keys) -> NDArray[np.float32]:
        rows = self._runtime.engine.compute_rows(function.base, keys, function.delta, fresh=True)
        self._watch.step()
        return rows

    def _estimate_errors(self) -> dict[str, float]:
        """By domain whose rows are estimated where they are not held."""
        engine = self._runtime.engine
        by_function = {
            function: engine.estimate_error(function.base, function.delta)
            for function in set(self._wanted.functions.values())
        }
        errors = {domain: by_function[function] for domain, function in self._wanted.functions.items()}
        return {domain: error for domain, error in errors.items() if error is not None}

    def _approximate_shares(self) -> dict[str, float]:
        """By domain: the share of its lookups, since the served version is served, that ran under `backoff`; where
        there were none, that of its models which are served so. One such model always counts for something."""
        with self._runtime.database.session(read_only=True) as session:
            usage = trees.hit_counts(session, self._base.id, self._wanted.number)
            approximate = models.approximate_shares(session, self._base.id)
        shares = {domain: share for domain, share in approximate.items() if share}
        for domain, use in usage.items():
            if use.lookups:
                least = _LEAST_SHARE if domain in shares else 0.0
                shares[domain] = max(least, min(1.0, use.approximate / use.lookups))
        return shares

    def _kept(self, folder: Path, domain: str, old: PreviousTree) -> str | None:
        """The old version's artifact where the new table is the same, byte for byte."""
        before, artifact = old.tables.get(domain), self._old_tables.get(domain)
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
        """Raises `Corrupt` where what was stored is not what was built."""

        def announce(digest: str) -> None:
            self._announce(domain, digest)
            fail_at(BuildPoint.STORING)

        owner = build_owner(self._base.id, self._number)
        artifacts = self._runtime.artifacts
        digest = artifacts.put_folder(folder / domain, owner=owner, announce=announce, progress=self._watch.step)
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
