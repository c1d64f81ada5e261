"""Random trees with deltas, planned and built version after version: what holds for every one of them."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hmi.knowledge import Function, ancestor_chains, functions_of, ngrams
from hmi.knowledge.build import verify_sample
from hmi.knowledge.counts import DomainCounts
from hmi.knowledge.domains import function_run
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.plan import TreePlan, plan_tree
from hmi.knowledge.store import entry_bytes, round_trip
from hmi.spec import RowDtype
from tests.unit.knowledge.builds import Builder, Model, function_rows
from tests.unit.knowledge.tables import FUNCTION, HIDDEN, PARENTS

VOCABULARY = 6
UNIGRAMS = ngrams.unigrams(VOCABULARY)
ROW_BYTES = entry_bytes(RowDtype.INT8, HIDDEN)
DOMAINS = sorted(PARENTS)
CHAINS = ancestor_chains(PARENTS)
_IDS = np.arange(VOCABULARY)
KEYS = ngrams.pack(np.repeat(_IDS[:3], VOCABULARY), np.tile(_IDS, 3), np.full(3 * VOCABULARY, -1))
"""Few n-grams: what domains share is what is worth testing."""

WEIGHTS = st.lists(st.sampled_from([0.0, 0.0, 1.0, 1.1, 2.0, 3.0, 10.0]), min_size=len(KEYS), max_size=len(KEYS))
COUNTS = st.dictionaries(st.sampled_from(DOMAINS), WEIGHTS)
DELTAS = st.dictionaries(st.sampled_from(DOMAINS), st.sampled_from(["d1", "d2", "d3"]), max_size=3)


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of small tables: whether they would outlive a power cut is not what is tested."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@dataclass(frozen=True)
class Case:
    deltas: dict[str, str]
    counts: list[dict[str, list[float]]]  # of one version after the other
    tolerance: float
    node_bytes: int

    @property
    def functions(self) -> dict[str, Function]:
        return functions_of(FUNCTION, PARENTS, self.deltas)

    @property
    def builder(self) -> Builder:
        return Builder(functions=self.functions, tolerance=self.tolerance, chunk=16)

    def versions(self, folder: Path, *, more: int = 0) -> Iterator[tuple[TreePlan, KnowledgeTree, Model]]:
        """Build a version of each of the counts, and `more` of the last ones again."""
        tree: KnowledgeTree | None = None
        plan: TreePlan | None = None
        for number, counts in enumerate([*self.counts, *self.counts[-1:] * more], start=1):
            old, model = self.builder.old(tree, plan), Model()
            plan = plan_tree(
                {domain: DomainCounts(KEYS, np.array(weights)) for domain, weights in counts.items()},
                PARENTS, self.functions, old.held, VOCABULARY, self.node_bytes, ROW_BYTES, backoff=old.backoff,
            )  # fmt: skip
            self.builder.build(folder / str(number), plan, model, old)
            tree = self.builder.open(folder / str(number), plan, number)
            yield plan, tree, model


CASES = st.builds(
    Case,
    deltas=DELTAS,
    counts=st.lists(COUNTS, min_size=1, max_size=3),
    tolerance=st.sampled_from([0.0, 0.1, 0.7]),
    node_bytes=st.integers(0, 8 * ROW_BYTES),
)
EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def run(tree: KnowledgeTree, domain: str) -> tuple[str, ...]:
    return function_run(CHAINS[domain], {each: str(tree.function_of(each)) for each in DOMAINS})[0]


@EXAMPLES
@given(CASES)
def test_every_version_holds_what_was_planned_within_its_budget(case: Case) -> None:
    with tempfile.TemporaryDirectory() as name:
        for plan, tree, _ in case.versions(Path(name)):
            assert set(UNIGRAMS.tolist()) <= set(plan.tables["general"].tolist())
            for domain, planned in plan.tables.items():
                if not len(planned):
                    assert domain not in tree.tables
                    continue
                table = tree.tables[domain]
                table.verify()
                assert sorted([*table.keys.tolist(), *table.aliases.tolist()]) == planned.tolist()
                free = len(UNIGRAMS) if domain == "general" else 0
                assert (table.meta.entries - free) * ROW_BYTES + table.meta.aliases * 8 <= case.node_bytes


@EXAMPLES
@given(CASES)
def test_nothing_is_held_twice_within_a_function_run(case: Case) -> None:
    with tempfile.TemporaryDirectory() as name:
        for plan, tree, _ in case.versions(Path(name)):
            for domain in DOMAINS:
                along = np.concatenate([plan.tables[each] for each in run(tree, domain)])
                assert len(np.unique(along)) == len(along)


@EXAMPLES
@given(CASES)
def test_every_alias_refers_to_a_row_within_the_tolerance(case: Case) -> None:
    with tempfile.TemporaryDirectory() as name:
        for _, tree, _ in case.versions(Path(name)):
            for domain, table in tree.tables.items():
                assert case.tolerance or not table.meta.aliases
                found = tree.lookup(domain, table.aliases)
                assert found.hit.all()
                assert not np.isin(
                    tree.holder_positions(domain, table.aliases), np.arange(len(run(tree, domain)))
                ).any()
                own = round_trip(function_rows(case.functions[domain], table.aliases), RowDtype.INT8)
                distance = np.linalg.norm(own - found.rows, axis=1)
                assert (distance <= case.tolerance * np.linalg.norm(own, axis=1) + 1e-6).all()
            verify_sample(tree, case.functions, Model(), 100, tolerance=case.tolerance)


@EXAMPLES
@given(CASES)
def test_every_row_is_that_of_its_domains_function(case: Case) -> None:
    with tempfile.TemporaryDirectory() as name:
        for _, tree, _ in case.versions(Path(name)):
            for domain, table in tree.tables.items():
                rows = round_trip(function_rows(case.functions[domain], table.keys), RowDtype.INT8)
                np.testing.assert_array_equal(table.read(np.arange(table.meta.entries)), rows)


@EXAMPLES
@given(CASES)
def test_the_predicted_hit_rate_equals_the_real_one_when_no_single_lookup_matters(case: Case) -> None:
    often = [{domain: [9 * each for each in weights] for domain, weights in counts.items()} for counts in case.counts]
    for each, matters in ((case, True), (dataclasses.replace(case, counts=often, node_bytes=2**20), False)):
        with tempfile.TemporaryDirectory() as name:
            for counts, (plan, tree, _) in zip(each.counts, each.versions(Path(name)), strict=True):
                for domain, weights in counts.items():
                    hit = tree.lookup(domain, KEYS).exact
                    if sum(weights):
                        found = np.array(weights)[hit].sum() / sum(weights)
                        assert plan.predicted[domain] <= found + 1e-9
                        assert matters or plan.predicted[domain] == pytest.approx(found)


@EXAMPLES
@given(CASES)
def test_a_first_version_has_every_alias_that_the_tolerance_allows(case: Case) -> None:
    with tempfile.TemporaryDirectory() as name:
        _, tree, model = next(case.versions(Path(name)))
        assert len({(function.digest, key) for function, call in model.calls for key in call}) == len(model.computed)
        for domain, table in tree.tables.items():
            foreign = function_run(CHAINS[domain], {each: str(tree.function_of(each)) for each in DOMAINS})[1]
            if foreign is None or not case.tolerance:
                assert not table.meta.aliases
                continue
            given_rows = tree.lookup(foreign, table.keys)
            own = table.read(np.arange(table.meta.entries))
            far = np.linalg.norm(own - given_rows.rows, axis=1) > case.tolerance * np.linalg.norm(own, axis=1)
            assert (far | ~given_rows.hit).all()


@settings(EXAMPLES, max_examples=20)
@given(CASES)
def test_repeated_builds_from_the_same_counts_converge(case: Case) -> None:
    # One build learns which n-grams are as good with the ancestors' rows; what that makes room for, the next ones.
    with tempfile.TemporaryDirectory() as name:
        built = list(case.versions(Path(name), more=8))
        (before, _, _), (last, _, model) = built[-2:]
        assert {domain: keys.tolist() for domain, keys in last.tables.items()} == {
            domain: keys.tolist() for domain, keys in before.tables.items()
        }
        assert not model.calls
        if not case.deltas:
            (first, _, _), (second, _, again) = built[len(case.counts) - 1 : len(case.counts) + 1]
            assert {domain: keys.tolist() for domain, keys in first.tables.items()} == {
                domain: keys.tolist() for domain, keys in second.tables.items()
            }
            assert not again.calls
