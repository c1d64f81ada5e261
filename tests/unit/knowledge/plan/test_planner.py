from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hmi.errors import Corrupt, InvalidInput
from hmi.knowledge import Keys, ancestor_chains, ngrams
from hmi.knowledge.counts import BackoffEstimates, DomainCounts, SharingRule, subtree_demands
from hmi.knowledge.plan import plan_tree
from tests.unit.knowledge.builds import PLAIN
from tests.unit.knowledge.plans import (
    CASES,
    KEYS,
    ROW_BYTES,
    UNIGRAMS,
    VOCABULARY,
    A,
    B,
    C,
    Case,
    counts_of,
    key,
    served,
    tables_of,
)
from tests.unit.knowledge.tables import PARENTS, as_keys


@settings(deadline=None)
@given(CASES)
def test_a_plan_respects_budget_root_and_order(case: Case) -> None:
    plan = case.plan()
    assert set(plan.tables) == set(PARENTS)
    assert set(UNIGRAMS.tolist()) <= set(plan.tables["general"].tolist())
    for domain, keys in plan.tables.items():
        assert keys.dtype == np.uint64
        assert (keys[1:] > keys[:-1]).all()
        assert len(keys) - (len(UNIGRAMS) if domain == "general" else 0) <= case.capacity


@settings(deadline=None)
@given(CASES)
def test_no_key_is_held_twice_along_an_ancestor_chain(case: Case) -> None:
    plan = case.plan()
    for line in ancestor_chains(PARENTS).values():
        along = np.concatenate([plan.tables[each] for each in line])
        assert len(np.unique(along)) == len(along)


@settings(deadline=None)
@given(CASES)
def test_only_requested_keys_are_held(case: Case) -> None:
    requested = {each for weights in case.weights.values() for each, weight in weights.items() if weight > 0}
    assert set().union(*tables_of(case.plan()).values()) <= requested


@settings(deadline=None)
@given(CASES)
def test_budget_is_left_only_when_all_requested_keys_are_served(case: Case) -> None:
    plan = case.plan()
    for domain, weights in case.weights.items():
        if len(tables_of(plan)[domain]) < case.capacity:
            assert {each for each, weight in weights.items() if weight > 0} <= served(plan, domain)


@settings(deadline=None)
@given(CASES)
def test_a_plan_comes_out_again_from_its_own_result(case: Case) -> None:
    plan = case.plan()
    again = case.plan(old=dict(plan.tables))
    assert tables_of(again) == tables_of(plan)


@settings(deadline=None)
@given(CASES)
def test_a_plan_does_not_depend_on_the_order_of_its_input(case: Case) -> None:
    turned = Case(
        {domain: dict(reversed(weights.items())) for domain, weights in reversed(case.weights.items())},
        dict(reversed(case.old.items())),
        case.capacity,
    )
    assert tables_of(turned.plan()) == tables_of(case.plan())


@settings(deadline=None)
@given(CASES, st.sampled_from(sorted(PARENTS)), st.sampled_from(KEYS), st.sampled_from([0.1, 1.0, 100.0]))
def test_more_weight_never_loses_a_key_its_place(case: Case, domain: str, which: int, more: float) -> None:
    heavier = {**case.weights, domain: {**case.weights.get(domain, {})}}
    heavier[domain][which] = heavier[domain].get(which, 0.0) + more
    if which in served(case.plan(), domain):
        assert which in served(Case(heavier, case.old, case.capacity).plan(), domain)


@settings(deadline=None)
@given(CASES, st.randoms(use_true_random=False))
def test_counts_that_change_by_less_than_the_hysteresis_change_nothing(case: Case, random: Random) -> None:
    # Of what the previous version held some stays for being held alone: that has used its advantage up.
    plan = case.plan(old={})
    wavered = {
        domain: {each: weight * random.uniform(1.0, 1.19) for each, weight in weights.items()}
        for domain, weights in case.weights.items()
    }
    again = Case(wavered, {}, case.capacity).plan(old=dict(plan.tables))
    assert tables_of(again) == tables_of(plan)


# By example


def test_a_key_goes_to_the_parent_when_two_children_request_it() -> None:
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


def test_a_cold_key_is_dropped_when_it_is_not_requested() -> None:
    assert not tables_of(Case({"news": {B: 1.0}}, {"news": {A}}, 5).plan())["movies"]
    assert tables_of(Case({"news": {B: 1.0}}, {"news": {A}}, 5).plan())["news"] == {B}


def test_unigrams_are_outside_the_budget_and_at_the_root_alone() -> None:
    alone = {int(each): 9.0 for each in UNIGRAMS}
    plan = Case({"news": {**alone, A: 1.0}, "general": alone}, {}, 1).plan()
    assert plan.tables["general"].tolist() == UNIGRAMS.tolist()
    assert plan.tables["news"].tolist() == [A]


def test_duplicate_counts_of_one_key_add_up() -> None:
    counts = {"news": DomainCounts(np.array([B, A, B], np.uint64), np.array([2.0, 3.0, 2.0]))}
    plan = plan_tree(counts, PARENTS, PLAIN, {}, VOCABULARY, ROW_BYTES, ROW_BYTES)
    assert plan.tables["news"].tolist() == [B]


def test_keys_that_are_no_windows_of_the_vocabulary_are_left_out() -> None:
    weights = {"news": {0: 5.0, key(VOCABULARY): 5.0, key(1, VOCABULARY): 5.0, A: 1.0}}
    assert tables_of(Case(weights, {}, 9).plan())["news"] == {A}


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_invalid_weights_are_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match="domain news"):
        Case({"news": {A: weight}}, {}, 1).plan()


def test_invalid_shares_are_refused() -> None:
    counts = {"news": DomainCounts(as_keys([A]), np.ones(1), approximate_share=1.1)}
    with pytest.raises(InvalidInput, match=r"1\.1 is not a share"):
        plan_tree(counts, PARENTS, PLAIN, {}, VOCABULARY, ROW_BYTES, ROW_BYTES)


def test_domains_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InvalidInput, match="sports"):
        Case({"sports": {A: 1.0}}, {}, 1).plan()
    with pytest.raises(Corrupt, match="own ancestor"):
        plan_tree({}, {"a": "a"}, {}, {}, VOCABULARY, 0, ROW_BYTES)


@pytest.mark.parametrize(("node_bytes", "row_bytes", "hysteresis"), [(-1, 10, 1.2), (10, 0, 1.2), (10, 10, 0.9)])
def test_an_invalid_budget_is_refused(node_bytes: int, row_bytes: int, hysteresis: float) -> None:
    with pytest.raises(ValueError, match="not a budget"):
        plan_tree({}, PARENTS, PLAIN, {}, VOCABULARY, node_bytes, row_bytes, hysteresis)


# Approximate service


def test_what_a_shorter_ngram_replaces_well_gives_way_when_misses_cost_no_computing() -> None:
    def plan(share: float) -> set[int]:
        counts = {"news": DomainCounts(as_keys([A, B]), np.array([1.0, 3.0]), approximate_share=share)}
        planned = plan_tree(
            counts, PARENTS, PLAIN, {}, VOCABULARY, ROW_BYTES, ROW_BYTES,
            backoff=BackoffEstimates(lambda _, keys: np.where(keys == A, 1.0, 0.1).astype(np.float32)),
        )  # fmt: skip
        return tables_of(planned)["news"]

    assert A < B
    assert plan(0.0) == {B}
    assert plan(0.5) == {B}  # 3 x (0.5 + 0.5 x 0.1) = 1.65
    assert plan(1.0) == {A}


@settings(deadline=None)
@given(CASES, st.sampled_from([0.25, 0.5, 1.0]), st.dictionaries(st.sampled_from(KEYS), st.sampled_from([0.0, 0.5])))
def test_a_share_of_approximate_lookups_weighs_by_the_error(case: Case, share: float, error: dict[int, float]) -> None:
    def errors(domain: str, keys: Keys) -> NDArray[np.float32]:
        return np.array([error.get(each, 1.0) for each in keys.tolist()], np.float32)

    counts = {
        domain: DomainCounts(each.keys, each.weights, approximate_share=share) for domain, each in case.counts().items()
    }
    downwards = sorted(PARENTS, key=lambda domain: len(ancestor_chains(PARENTS)[domain]))
    weighed = subtree_demands(counts, PARENTS, downwards[::-1], VOCABULARY, {}, BackoffEstimates(errors), SharingRule())
    exact = subtree_demands(
        case.counts(), PARENTS, downwards[::-1], VOCABULARY, {}, BackoffEstimates(errors), SharingRule()
    )
    for domain in PARENTS:
        keys = exact[domain].keys
        factor = (1 - share) + share * errors(domain, keys).astype(np.float64)
        assert weighed[domain].keys.tolist() == keys.tolist()
        np.testing.assert_allclose(weighed[domain].savings, exact[domain].savings * factor)
        assert weighed[domain].per_lookup <= exact[domain].per_lookup == pytest.approx(1.0)


def test_errors_are_not_measured_when_no_domain_is_served_approximately() -> None:
    def errors(domain: str, keys: Keys) -> NDArray[np.float32]:
        raise AssertionError("not needed")

    counts = {"news": counts_of({A: 1.0})}
    plan_tree(counts, PARENTS, PLAIN, {}, VOCABULARY, ROW_BYTES, ROW_BYTES, backoff=BackoffEstimates(errors))


def test_bigrams_are_held_for_new_windows_when_misses_cost_no_computing() -> None:
    windows = ngrams.pack(np.array([0, 0, 0, 1]), np.array([1, 1, 1, 1]), np.array([0, 1, 2, 3]))
    stem, other = (int(each) for each in ngrams.without_next(windows[[0, 3]]))
    requested: list[str] = []

    def gain(domain: str, keys: Keys) -> float:
        requested.append(domain)
        return 0.5

    def plan(share: float, rows: int, counts: list[float]) -> set[int]:
        planned = plan_tree(
            {"news": DomainCounts(windows, np.array(counts), approximate_share=share)},
            PARENTS, PLAIN, {}, VOCABULARY, rows * ROW_BYTES, ROW_BYTES,
            backoff=BackoffEstimates(lambda _, keys: np.full(len(keys), 0.8, np.float32), gain),
        )  # fmt: skip
        return tables_of(planned)["news"]

    assert plan(0.0, 9, [1.0] * 4) == set(windows.tolist())
    assert not requested
    sides = set(ngrams.without_prev(windows).tolist())
    assert plan(1.0, 10, [1.0] * 4) == {*windows.tolist(), stem, other, *sides}
    assert plan(1.0, 6, [1.0] * 4) == {*windows.tolist(), stem, other}
    # Each of its windows was new once, however often it came: 3 x 0.5 against (1 + about a half) x 0.8.
    assert plan(1.0, 1, [1.0, 1.0, 1.0, 1.0]) == {stem}
    assert plan(1.0, 2, [9.0, 1.0, 1.0, 9.0]) == {int(windows[0]), int(windows[3])}
    assert plan(0.1, 1, [1.0] * 4) == {int(windows[0])}
    assert set(requested) == {"news"}


def test_bigrams_held_for_new_windows_predict_no_hits() -> None:
    windows = ngrams.pack(np.array([0, 0]), np.array([1, 1]), np.array([0, 1]))
    counts = {"news": DomainCounts(windows, np.array([3.0, 1.0]), approximate_share=1.0)}
    plan = plan_tree(
        counts, PARENTS, PLAIN, {}, VOCABULARY, 9 * ROW_BYTES, ROW_BYTES,
        backoff=BackoffEstimates(lambda _, keys: np.ones(len(keys), np.float32), lambda *_: 1.0),
    )  # fmt: skip
    assert len(plan.tables["news"]) == 2 + 1 + 2
    assert plan.predicted == {"news": 0.75}
