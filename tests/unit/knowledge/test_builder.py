from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.errors import Corrupt, InvalidInput
from hmi.knowledge import ngrams
from hmi.knowledge.builder import DomainCounts, TreePlan, plan_tree
from hmi.knowledge.coverage import coverage
from hmi.knowledge.hierarchy import lines_of
from hmi.knowledge.ngrams import Keys
from tests.unit.knowledge.tables import PARENTS

VOCABULARY = 4
ROW_BYTES = 10
UNIGRAMS = ngrams.unigrams(VOCABULARY)


def key(token: int, prev: int = 0) -> int:
    """A window of the vocabulary: bigrams stand for all longer n-grams here."""
    return int(ngrams.pack(np.array([prev]), np.array([token]), np.array([-1]))[0])


# Few keys, few weights: what collides and ties is what is worth testing.
KEYS = [key(token, prev) for prev in (0, 1, 2) for token in range(VOCABULARY)]
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 1.1, 1.2, 2.0, 3.0, 10.0])
COUNTS = st.dictionaries(st.sampled_from(sorted(PARENTS)), st.dictionaries(st.sampled_from(KEYS), WEIGHTS))
HELD = st.dictionaries(st.sampled_from(sorted(PARENTS)), st.sets(st.sampled_from(KEYS)))


@dataclass(frozen=True)
class Case:
    """All arguments of a plan."""

    weights: dict[str, dict[int, float]]
    old: dict[str, set[int]]
    capacity: int

    def counts(self) -> dict[str, DomainCounts]:
        return {domain: counts_of(weights) for domain, weights in self.weights.items()}

    def plan(self, old: dict[str, Keys] | None = None) -> TreePlan:
        before = (
            {domain: np.array(sorted(keys), np.uint64) for domain, keys in self.old.items()} if old is None else old
        )
        node_bytes = self.capacity * ROW_BYTES + ROW_BYTES - 1
        return plan_tree(self.counts(), PARENTS, before, VOCABULARY, node_bytes, ROW_BYTES)


CASES = st.builds(Case, weights=COUNTS, old=HELD, capacity=st.integers(0, 5))


def counts_of(weights: dict[int, float]) -> DomainCounts:
    return DomainCounts(np.array(list(weights), np.uint64), np.array(list(weights.values()), np.float64))


def tables_of(plan: TreePlan) -> dict[str, set[int]]:
    """What each table holds beside the vocabulary's unigrams."""
    return {domain: set(keys.tolist()) - set(UNIGRAMS.tolist()) for domain, keys in plan.tables.items()}


def served(plan: TreePlan, domain: str) -> set[int]:
    return set().union(*(plan.tables[each].tolist() for each in lines_of(PARENTS)[domain]))


@given(CASES)
def test_a_plan_respects_budget_root_and_order(case: Case) -> None:
    plan = case.plan()
    assert set(plan.tables) == set(PARENTS)
    assert set(UNIGRAMS.tolist()) <= set(plan.tables["general"].tolist())
    for domain, keys in plan.tables.items():
        assert keys.dtype == np.uint64
        assert (keys[1:] > keys[:-1]).all()
        assert len(keys) - (len(UNIGRAMS) if domain == "general" else 0) <= case.capacity


@given(CASES)
def test_no_key_is_held_twice_along_a_line(case: Case) -> None:
    plan = case.plan()
    for line in lines_of(PARENTS).values():
        along = np.concatenate([plan.tables[each] for each in line])
        assert len(np.unique(along)) == len(along)


@given(CASES)
def test_nothing_is_held_that_nobody_asked_for(case: Case) -> None:
    asked = {each for weights in case.weights.values() for each, weight in weights.items() if weight > 0}
    assert set().union(*tables_of(case.plan()).values()) <= asked


@given(CASES)
def test_room_is_left_over_only_when_all_that_was_asked_for_is_served(case: Case) -> None:
    plan = case.plan()
    for domain, weights in case.weights.items():
        if len(tables_of(plan)[domain]) < case.capacity:
            assert {each for each, weight in weights.items() if weight > 0} <= served(plan, domain)


@given(CASES)
def test_a_plan_comes_out_again_from_its_own_result(case: Case) -> None:
    plan = case.plan()
    again = case.plan(old=dict(plan.tables))
    assert tables_of(again) == tables_of(plan)


@given(CASES)
def test_a_plan_does_not_depend_on_the_order_of_its_input(case: Case) -> None:
    turned = Case(
        {domain: dict(reversed(weights.items())) for domain, weights in reversed(case.weights.items())},
        dict(reversed(case.old.items())),
        case.capacity,
    )
    assert tables_of(turned.plan()) == tables_of(case.plan())


@given(CASES, st.sampled_from(sorted(PARENTS)), st.sampled_from(KEYS), st.sampled_from([0.1, 1.0, 100.0]))
def test_more_weight_never_loses_a_key_its_place(case: Case, domain: str, which: int, more: float) -> None:
    heavier = {**case.weights, domain: {**case.weights.get(domain, {})}}
    heavier[domain][which] = heavier[domain].get(which, 0.0) + more
    if which in served(case.plan(), domain):
        assert which in served(Case(heavier, case.old, case.capacity).plan(), domain)


# By example

A, B, C, D = (key(token) for token in range(4))


def test_a_key_goes_to_the_parent_when_two_children_want_it() -> None:
    held = tables_of(Case({"movies": {A: 1.0, B: 5.0}, "products": {A: 1.0}}, {}, 9).plan())
    assert held == {"general": set(), "reviews": {A}, "movies": {B}, "products": set(), "news": set()}


def test_a_key_goes_to_the_root_when_branches_share_it() -> None:
    held = tables_of(Case({"movies": {A: 1.0}, "news": {A: 1.0, B: 1.0}}, {}, 9).plan())
    assert held["general"] == {A}
    assert held["news"] == {B}
    assert not held["movies"]


def test_room_that_hoisting_makes_goes_to_the_next_heaviest() -> None:
    held = tables_of(Case({"movies": {A: 9.0, B: 5.0, C: 1.0}, "products": {A: 9.0}}, {}, 1).plan())
    assert held["reviews"] == {A}
    assert held["movies"] == {B}


def test_a_shared_key_stays_with_the_children_when_the_parent_is_full() -> None:
    weights = {"movies": {A: 9.0, B: 5.0}, "products": {A: 9.0, B: 5.0}}
    held = tables_of(Case(weights, {}, 1).plan())
    assert (held["reviews"], held["movies"], held["products"]) == ({A}, {B}, {B})


def test_of_equals_the_smaller_key_is_held() -> None:
    assert tables_of(Case({"news": {B: 1.0, A: 1.0}}, {}, 1).plan())["news"] == {min(A, B)}


@pytest.mark.parametrize(("weight", "winner"), [(1.1, A), (1.3, B)])
def test_a_newcomer_replaces_a_held_key_only_when_it_is_clearly_heavier(weight: float, winner: int) -> None:
    assert tables_of(Case({"news": {A: 1.0, B: weight}}, {"news": {A}}, 1).plan())["news"] == {winner}


def test_a_key_that_went_cold_is_dropped_when_nobody_asks_for_it() -> None:
    assert not tables_of(Case({"news": {B: 1.0}}, {"news": {A}}, 5).plan())["movies"]
    assert tables_of(Case({"news": {B: 1.0}}, {"news": {A}}, 5).plan())["news"] == {B}


def test_unigrams_are_outside_the_budget_and_at_the_root_alone() -> None:
    alone = {int(each): 9.0 for each in UNIGRAMS}
    plan = Case({"news": {**alone, A: 1.0}, "general": alone}, {}, 1).plan()
    assert plan.tables["general"].tolist() == UNIGRAMS.tolist()
    assert plan.tables["news"].tolist() == [A]


def test_counts_of_one_key_in_pieces_add_up() -> None:
    counts = {"news": DomainCounts(np.array([B, A, B], np.uint64), np.array([2.0, 3.0, 2.0]))}
    plan = plan_tree(counts, PARENTS, {}, VOCABULARY, ROW_BYTES, ROW_BYTES)
    assert plan.tables["news"].tolist() == [B]


def test_keys_that_are_no_windows_of_the_vocabulary_are_left_out() -> None:
    weights = {"news": {0: 5.0, key(VOCABULARY): 5.0, key(1, VOCABULARY): 5.0, A: 1.0}}
    assert tables_of(Case(weights, {}, 9).plan())["news"] == {A}


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_that_are_none_are_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match="domain news"):
        Case({"news": {A: weight}}, {}, 1).plan()


def test_domains_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InvalidInput, match="sports"):
        Case({"sports": {A: 1.0}}, {}, 1).plan()
    with pytest.raises(Corrupt, match="own ancestor"):
        plan_tree({}, {"a": "a"}, {}, VOCABULARY, 0, ROW_BYTES)


@pytest.mark.parametrize(("node_bytes", "row_bytes", "hysteresis"), [(-1, 10, 1.2), (10, 0, 1.2), (10, 10, 0.9)])
def test_a_budget_that_is_none_is_refused(node_bytes: int, row_bytes: int, hysteresis: float) -> None:
    with pytest.raises(ValueError, match="not a budget"):
        plan_tree({}, PARENTS, {}, VOCABULARY, node_bytes, row_bytes, hysteresis)


# Coverage


@given(CASES)
def test_coverage_is_the_share_of_weight_that_the_line_serves(case: Case) -> None:
    plan = case.plan()
    rates = coverage(case.counts(), PARENTS, plan.tables)
    for domain, weights in case.weights.items():
        total = sum(weights.values())
        assert (domain in rates) == (total > 0)
        if total > 0:
            hits = sum(weight for each, weight in weights.items() if each in served(plan, domain))
            assert rates[domain] == pytest.approx(hits / total)


def test_coverage_is_none_without_tables_and_full_with_all() -> None:
    counts = {"movies": counts_of({A: 1.0, B: 3.0})}
    assert coverage(counts, PARENTS, {}) == {"movies": 0.0}
    assert coverage(counts, PARENTS, {"general": np.array([B], np.uint64)}) == {"movies": 0.75}
    assert coverage(counts, PARENTS, {"general": np.array([B], np.uint64), "movies": np.array([A], np.uint64)}) == {
        "movies": 1.0
    }
