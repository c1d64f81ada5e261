from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmi.knowledge.counts import BackoffEstimates, DomainCounts
from hmi.knowledge.plan import plan_tree
from tests.unit.knowledge.builds import PLAIN
from tests.unit.knowledge.plans import (
    CASES,
    DELTA,
    HELD,
    KEYS,
    ROW,
    ROW_BYTES,
    VOCABULARY,
    A,
    B,
    C,
    Case,
    counts_of,
    served,
    tables_of,
)
from tests.unit.knowledge.tables import PARENTS, as_keys

LOOKUPS = st.dictionaries(
    st.sampled_from(sorted(PARENTS)), st.dictionaries(st.sampled_from(KEYS), st.sampled_from([1.0, 1.0, 2.0, 3.0]))
)


def rate_without_itself(case: Case, domain: str, left_out: float = 1.0) -> float:
    """Planned anew without each lookup in turn, or a part of it: the share that would be hits."""
    hits = 0.0
    for each, weight in case.weights[domain].items():
        fewer = {**case.weights, domain: {**case.weights[domain], each: weight - left_out}}
        hits += weight * (each in served(Case(fewer, case.old, case.capacity).plan(), domain))
    return hits / sum(case.weights[domain].values())


@settings(deadline=None)
@given(LOOKUPS, HELD)
def test_each_lookup_is_predicted_without_itself(
    weights: dict[str, dict[int, float]], old: dict[str, set[int]]
) -> None:
    case = Case(weights, old, capacity=len(KEYS))
    rates = case.plan().predicted
    assert set(rates) == {domain for domain in weights if weights[domain]}
    for domain, rate in rates.items():
        assert rate == pytest.approx(rate_without_itself(case, domain))


@settings(deadline=None)
@given(CASES)
def test_no_more_is_predicted_than_the_ancestor_chain_serves_of_the_counts(case: Case) -> None:
    plan = case.plan()
    for domain, weights in case.weights.items():
        total = sum(weights.values())
        assert (domain in plan.predicted) == (total > 0)
        if total > 0:
            hits = sum(weight for each, weight in weights.items() if each in served(plan, domain))
            assert -1e-9 <= plan.predicted[domain] <= hits / total + 1e-9


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), st.sampled_from([1.0, 2.0, 3.0, 10.0]), min_size=1), st.integers(0, 5))
def test_within_a_budget_a_lookup_is_predicted_without_itself_but_with_its_bigrams(
    weights: dict[int, float], capacity: int
) -> None:
    case = Case({"news": weights}, {}, capacity)
    predicted = case.plan().predicted["news"]
    assert rate_without_itself(case, "news") - 1e-9 <= predicted
    assert predicted <= rate_without_itself(case, "news", left_out=0.75) + 1e-9


def test_a_new_window_is_predicted_as_often_as_windows_were_new() -> None:
    weights = {A: 1.0, B: 1.0, C: 6.0}
    assert Case({"news": weights}, {}, 9).plan().predicted == {"news": 6 / 8}
    assert Case({"news": weights}, {}, 0).plan().predicted == {"news": 0.0}


def test_one_lookup_of_a_sibling_is_no_help_and_two_are() -> None:
    rates = Case({"movies": {A: 1.0}, "products": {A: 1.0}}, {}, 9).plan().predicted
    assert rates == {"movies": 0.0, "products": 0.0}  # without itself, the other's stays with the other
    rates = Case({"movies": {A: 1.0}, "products": {A: 1.0}, "news": {A: 1.0}}, {}, 9).plan().predicted
    assert rates == {"movies": 1.0, "products": 1.0, "news": 0.0}


def test_what_only_just_fits_is_predicted_to_miss() -> None:
    weights = {A: 10.0, B: 2.0, C: 1.9}
    assert Case({"news": weights}, {}, 2).plan().predicted["news"] == pytest.approx(10 / 13.9)
    assert Case({"news": weights}, {}, 3).plan().predicted["news"] == pytest.approx(1.0)


def test_what_is_not_kept_in_the_counts_is_predicted_to_miss() -> None:
    counts = {"movies": DomainCounts(as_keys([A, B]), np.array([1.0, 3.0]), total=8.0)}
    plan = plan_tree(counts, PARENTS, PLAIN, {}, VOCABULARY, 9 * ROW_BYTES, ROW_BYTES)
    assert plan.predicted == {"movies": 0.375}


def test_what_ancestors_of_another_function_hold_is_predicted_to_miss() -> None:
    counts = {"general": counts_of({A: 9.0}), "reviews": counts_of({A: 3.0, B: 5.0})}
    plan = plan_tree(counts, PARENTS, DELTA, {}, VOCABULARY, ROW, ROW)
    assert tables_of(plan)["reviews"] == {B}
    assert plan.predicted == {"general": 1.0, "reviews": 5 / 8}


def test_few_errors_make_little_of_a_lookup_that_is_left_out() -> None:
    counts = {"news": DomainCounts(as_keys([A, B]), np.array([3.0, 2.0]), approximate_share=1.0)}
    plan = plan_tree(
        counts, PARENTS, PLAIN, {}, VOCABULARY, ROW_BYTES, ROW_BYTES,
        backoff=BackoffEstimates(lambda _, keys: np.full(len(keys), 0.1, np.float32)),
    )  # fmt: skip
    assert plan.predicted["news"] == pytest.approx(3 / 5)
