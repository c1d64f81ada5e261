from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hmi.errors import Corrupt, InvalidInput
from hmi.knowledge import ngrams
from hmi.knowledge.builder import DomainCounts, TreePlan, plan_tree
from hmi.knowledge.demand import subtree_demands
from hmi.knowledge.functions import Function, functions_of
from hmi.knowledge.hierarchy import lines_of
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.old import OldTable
from tests.unit.knowledge.builds import PLAIN
from tests.unit.knowledge.tables import FUNCTION, PARENTS, as_keys

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
        before = {domain: as_keys(keys) for domain, keys in self.old.items()} if old is None else old
        tables = {domain: OldTable(FUNCTION, keys) for domain, keys in before.items()}
        node_bytes = self.capacity * ROW_BYTES + ROW_BYTES - 1
        return plan_tree(self.counts(), PARENTS, PLAIN, tables, VOCABULARY, node_bytes, ROW_BYTES)


CASES = st.builds(Case, weights=COUNTS, old=HELD, capacity=st.integers(0, 5))


def counts_of(weights: dict[int, float]) -> DomainCounts:
    return DomainCounts(np.array(list(weights), np.uint64), np.array(list(weights.values()), np.float64))


def tables_of(plan: TreePlan) -> dict[str, set[int]]:
    """What each table holds beside the vocabulary's unigrams."""
    return {domain: set(keys.tolist()) - set(UNIGRAMS.tolist()) for domain, keys in plan.tables.items()}


def served(plan: TreePlan, domain: str) -> set[int]:
    return set().union(*(plan.tables[each].tolist() for each in lines_of(PARENTS)[domain]))


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
def test_no_key_is_held_twice_along_a_line(case: Case) -> None:
    plan = case.plan()
    for line in lines_of(PARENTS).values():
        along = np.concatenate([plan.tables[each] for each in line])
        assert len(np.unique(along)) == len(along)


@settings(deadline=None)
@given(CASES)
def test_nothing_is_held_that_nobody_asked_for(case: Case) -> None:
    asked = {each for weights in case.weights.values() for each, weight in weights.items() if weight > 0}
    assert set().union(*tables_of(case.plan()).values()) <= asked


@settings(deadline=None)
@given(CASES)
def test_room_is_left_over_only_when_all_that_was_asked_for_is_served(case: Case) -> None:
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
def test_counts_that_waver_by_less_than_the_hysteresis_change_nothing(case: Case, random: Random) -> None:
    # Of what the old version held some stays for being held alone: that has used its advantage up.
    plan = case.plan(old={})
    wavered = {
        domain: {each: weight * random.uniform(1.0, 1.19) for each, weight in weights.items()}
        for domain, weights in case.weights.items()
    }
    again = Case(wavered, {}, case.capacity).plan(old=dict(plan.tables))
    assert tables_of(again) == tables_of(plan)


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
    plan = plan_tree(counts, PARENTS, PLAIN, {}, VOCABULARY, ROW_BYTES, ROW_BYTES)
    assert plan.tables["news"].tolist() == [B]


def test_keys_that_are_no_windows_of_the_vocabulary_are_left_out() -> None:
    weights = {"news": {0: 5.0, key(VOCABULARY): 5.0, key(1, VOCABULARY): 5.0, A: 1.0}}
    assert tables_of(Case(weights, {}, 9).plan())["news"] == {A}


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_that_are_none_are_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match="domain news"):
        Case({"news": {A: weight}}, {}, 1).plan()


def test_shares_that_are_none_are_refused() -> None:
    counts = {"news": DomainCounts(as_keys([A]), np.ones(1), approximate_share=1.1)}
    with pytest.raises(InvalidInput, match=r"1\.1 is not a share"):
        plan_tree(counts, PARENTS, PLAIN, {}, VOCABULARY, ROW_BYTES, ROW_BYTES)


def test_domains_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InvalidInput, match="sports"):
        Case({"sports": {A: 1.0}}, {}, 1).plan()
    with pytest.raises(Corrupt, match="own ancestor"):
        plan_tree({}, {"a": "a"}, {}, {}, VOCABULARY, 0, ROW_BYTES)


@pytest.mark.parametrize(("node_bytes", "row_bytes", "hysteresis"), [(-1, 10, 1.2), (10, 0, 1.2), (10, 10, 0.9)])
def test_a_budget_that_is_none_is_refused(node_bytes: int, row_bytes: int, hysteresis: float) -> None:
    with pytest.raises(ValueError, match="not a budget"):
        plan_tree({}, PARENTS, PLAIN, {}, VOCABULARY, node_bytes, row_bytes, hysteresis)


# Approximate service


def test_what_a_shorter_ngram_replaces_well_gives_way_when_misses_cost_no_computing() -> None:
    def plan(share: float) -> set[int]:
        counts = {"news": DomainCounts(as_keys([A, B]), np.array([1.0, 3.0]), approximate_share=share)}
        planned = plan_tree(
            counts, PARENTS, PLAIN, {}, VOCABULARY, ROW_BYTES, ROW_BYTES,
            errors=lambda _, keys: np.where(keys == A, 1.0, 0.1).astype(np.float32),
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
    downwards = sorted(PARENTS, key=lambda domain: len(lines_of(PARENTS)[domain]))
    weighed = subtree_demands(counts, PARENTS, downwards[::-1], VOCABULARY, errors, {})
    exact = subtree_demands(case.counts(), PARENTS, downwards[::-1], VOCABULARY, errors, {})
    for domain in PARENTS:
        keys = exact[domain].keys
        factor = (1 - share) + share * errors(domain, keys).astype(np.float64)
        assert weighed[domain].keys.tolist() == keys.tolist()
        np.testing.assert_allclose(weighed[domain].savings, exact[domain].savings * factor)
        assert weighed[domain].per_lookup <= exact[domain].per_lookup == pytest.approx(1.0)


def test_errors_are_not_asked_for_when_nobody_is_served_approximately() -> None:
    def errors(domain: str, keys: Keys) -> NDArray[np.float32]:
        raise AssertionError("not needed")

    counts = {"news": counts_of({A: 1.0})}
    plan_tree(counts, PARENTS, PLAIN, {}, VOCABULARY, ROW_BYTES, ROW_BYTES, errors=errors)


def test_bigrams_are_wanted_for_what_they_stand_in_for_when_misses_cost_no_computing() -> None:
    windows = ngrams.pack(np.array([0, 0, 0, 1]), np.array([1, 1, 1, 1]), np.array([0, 1, 2, 3]))
    stem, other = (int(each) for each in ngrams.without_next(windows[[0, 3]]))
    asked: list[str] = []

    def gain(domain: str, keys: Keys) -> float:
        asked.append(domain)
        return 0.5

    def plan(share: float, rows: int, counts: list[float]) -> set[int]:
        planned = plan_tree(
            {"news": DomainCounts(windows, np.array(counts), approximate_share=share)},
            PARENTS, PLAIN, {}, VOCABULARY, rows * ROW_BYTES, ROW_BYTES,
            errors=lambda _, keys: np.full(len(keys), 0.8, np.float32), bigram_gain=gain,
        )  # fmt: skip
        return tables_of(planned)["news"]

    assert plan(0.0, 9, [1.0] * 4) == set(windows.tolist())
    assert not asked
    assert plan(1.0, 9, [1.0] * 4) == {*windows.tolist(), stem, other}
    # Each of its windows was new once, however often it came: 3 x 0.5 against (1 + about a half) x 0.8.
    assert plan(1.0, 1, [1.0, 1.0, 1.0, 1.0]) == {stem}
    assert plan(1.0, 2, [9.0, 1.0, 1.0, 9.0]) == {int(windows[0]), int(windows[3])}
    assert plan(0.1, 1, [1.0] * 4) == {int(windows[0])}
    assert set(asked) == {"news"}


def test_what_bigrams_are_held_for_is_no_hit() -> None:
    windows = ngrams.pack(np.array([0, 0]), np.array([1, 1]), np.array([0, 1]))
    counts = {"news": DomainCounts(windows, np.array([3.0, 1.0]), approximate_share=1.0)}
    plan = plan_tree(
        counts, PARENTS, PLAIN, {}, VOCABULARY, 9 * ROW_BYTES, ROW_BYTES,
        errors=lambda _, keys: np.ones(len(keys), np.float32), bigram_gain=lambda *_: 1.0,
    )  # fmt: skip
    assert len(plan.tables["news"]) == 3
    assert plan.predicted == {"news": 0.75}


# Domains with deltas

DELTA = functions_of(FUNCTION, PARENTS, {"reviews": "d1"})  # of reviews, movies and products
BOTH = functions_of(FUNCTION, PARENTS, {"reviews": "d1", "movies": "d2"})
ROW = 24  # bytes; three marks


def plan_with(
    weights: dict[str, dict[int, float]],
    old: dict[str, OldTable],
    rows: int,
    functions: Mapping[str, Function] = DELTA,
) -> dict[str, set[int]]:
    counts = {domain: counts_of(each) for domain, each in weights.items()}
    return tables_of(plan_tree(counts, PARENTS, functions, old, VOCABULARY, rows * ROW, ROW))


def marked(functions: Mapping[str, Function], domain: str, keys: list[int], settled: list[int]) -> OldTable:
    """An old table of marks that stand for rows of the parent's own function, and of rows that were compared."""
    above = functions[str(PARENTS[domain])].digest
    return OldTable(
        functions[domain].digest, as_keys(settled), as_keys(keys), above, {above: as_keys(keys)}, as_keys(settled),
        mark_share=(len(keys) + 1) / (len(keys) + len(settled) + 1),
    )  # fmt: skip


def test_a_domain_with_a_delta_chooses_whatever_its_ancestors_hold() -> None:
    held = plan_with({"general": {A: 9.0}, "reviews": {A: 5.0}, "movies": {A: 1.0}}, {}, 9)
    assert (held["general"], held["reviews"], held["movies"]) == ({A}, {A}, set())


def test_unigrams_of_the_root_are_no_hits_below_a_delta() -> None:
    token = int(UNIGRAMS[0])
    plan = plan_tree({"movies": counts_of({token: 2.0})}, PARENTS, DELTA, {}, VOCABULARY, ROW, ROW)
    assert plan.tables["movies"].tolist() == [token]
    assert plan.predicted == {"movies": 1.0}


def test_what_is_known_to_be_a_mark_costs_eight_bytes() -> None:
    weights = {"general": {A: 1.0, B: 1.0, C: 1.0}, "reviews": {A: 1.0, B: 1.0, C: 1.0, D: 3.0}}
    assert plan_with(weights, {}, 3)["reviews"] == {A, B, D}
    known = {"reviews": marked(DELTA, "reviews", [A, B, C], [])}
    assert plan_with(weights, known, 3)["reviews"] == {A, B, C, D}


def test_a_mark_costs_a_row_again_when_the_ancestors_lost_it() -> None:
    weights = {"general": {A: 1.0}, "reviews": {A: 1.0, B: 1.0, C: 1.0}}
    known = {"reviews": marked(DELTA, "reviews", [A, B, C], [])}
    assert plan_with(weights, known, 1)["reviews"] == {A}
    assert plan_with(weights, known, 2)["reviews"] == {A, B}


def test_marks_of_other_functions_are_worth_nothing() -> None:
    weights = {"general": {A: 1.0, B: 1.0}, "reviews": {A: 1.0, B: 1.0}}
    known = marked(DELTA, "reviews", [A, B], [])
    assert plan_with(weights, {"reviews": known}, 2)["reviews"] == {A, B}
    for other in (dataclasses.replace(known, function="0" * 64), dataclasses.replace(known, above="0" * 64)):
        assert plan_with(weights, {"reviews": other}, 1)["reviews"] == {A}


def test_a_mark_for_a_middle_function_holds_only_when_its_row_is_sure() -> None:
    weights = {"reviews": {A: 1.0, B: 1.0}, "movies": {A: 1.0, B: 1.0}}
    below = {"movies": marked(BOTH, "movies", [A, B], [])}
    # reviews holds rows, and its ancestors give none that they might turn out to equal.
    assert plan_with(weights, below, 2, BOTH)["movies"] == {A, B}
    few = {"general": {A: 1.0, B: 1.0}, **weights, "movies": {A: 1.0, B: 1.0, C: 1.0, D: 1.0}}
    # Now reviews' rows may become marks for the root's, and then what movies was compared with is gone.
    assert len(plan_with(few, below, 2, BOTH)["movies"]) == 2
    # Both were compared already: they stay rows.
    assert plan_with(few, {**below, "reviews": marked(BOTH, "reviews", [], [A, B])}, 2, BOTH)["movies"] == {A, B, C}


def test_children_of_different_functions_count_at_their_parent_by_the_share_of_their_marks() -> None:
    functions = functions_of(FUNCTION, PARENTS, {"news": "d1", "reviews": "d2"})
    weights = {"news": {A: 4.0}, "reviews": {A: 4.0}, "general": {B: 6.0}}
    assert plan_with(weights, {}, 1, functions)["general"] == {A}
    halves = {domain: marked(functions, domain, [C, D], [A, B]) for domain in ("news", "reviews")}
    assert plan_with(weights, halves, 1, functions)["general"] == {B}  # 0.6 x (8 + sqrt(8)) < 6 + sqrt(6) / 2
    assert plan_with(weights, halves, 2, functions)["general"] == {A, B}


def test_nothing_is_hoisted_to_another_function_where_it_would_spare_less_than_its_own_row() -> None:
    functions = functions_of(FUNCTION, PARENTS, {"news": "d1", "reviews": "d2"})
    weights = {"news": {A: 4.0}, "reviews": {A: 4.0}}
    few = {domain: marked(functions, domain, [D], [A, B, C]) for domain in ("news", "reviews")}  # 2 of 5 each
    assert plan_with(weights, few, 9, functions)["general"] == set()
    assert plan_with({**weights, "general": {A: 1.0}}, few, 9, functions)["general"] == {A}
    some = {domain: marked(functions, domain, [C, D], [A, B]) for domain in ("news", "reviews")}  # 3 of 5 each
    assert plan_with(weights, some, 9, functions)["general"] == {A}
    three = {"news": marked(functions, "news", [D, C], [A, B, key(1, 1)])}  # a half, and a share that is not known
    assert plan_with(weights, three, 9, functions)["general"] == {A}
    kept = few | {"general": OldTable(FUNCTION, as_keys([A]))}
    assert plan_with(weights, kept, 9, functions)["general"] == set()
    almost = {domain: marked(functions, domain, [*range(8)], [*range(8, 18)]) for domain in ("news", "reviews")}
    assert plan_with(weights, almost, 9, functions)["general"] == set()  # 9 of 19 each
    assert plan_with(weights, almost | {"general": OldTable(FUNCTION, as_keys([A]))}, 9, functions)["general"] == {A}


def test_marks_are_kept_as_rows_are_when_something_a_little_heavier_comes() -> None:
    weights = {"reviews": {A: 1.0, B: 1.1}}
    assert plan_with(weights, {}, 1)["reviews"] == {B}
    assert plan_with(weights, {"reviews": marked(DELTA, "reviews", [A], [])}, 1)["reviews"] == {A}


# Predicted hit rates

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
def test_no_more_is_predicted_than_what_the_line_serves_of_the_counts(case: Case) -> None:
    plan = case.plan()
    for domain, weights in case.weights.items():
        total = sum(weights.values())
        assert (domain in plan.predicted) == (total > 0)
        if total > 0:
            hits = sum(weight for each, weight in weights.items() if each in served(plan, domain))
            assert -1e-9 <= plan.predicted[domain] <= hits / total + 1e-9


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), st.sampled_from([1.0, 2.0, 3.0, 10.0]), min_size=1), st.integers(0, 5))
def test_within_a_budget_a_lookup_is_predicted_without_itself_but_with_what_it_says_of_bigrams(
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


def test_a_sibling_that_asked_once_is_no_help_and_two_are() -> None:
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
        errors=lambda _, keys: np.full(len(keys), 0.1, np.float32),
    )  # fmt: skip
    assert plan.predicted["news"] == pytest.approx(3 / 5)


# What bigrams say

TRIGRAMS = [
    int(ngrams.pack(np.array([prev]), np.array([mid]), np.array([following]))[0])
    for prev in (-1, 0, 1)
    for mid in (0, 1)
    for following in (-1, 0, 1)
]
FADED = st.dictionaries(st.sampled_from(TRIGRAMS), st.sampled_from([0.0, 0.01, 0.3, 1.0, 1.1, 2.0, 10.0]))


def test_of_windows_asked_for_as_often_the_one_of_frequent_bigrams_is_held() -> None:
    rare, likely, left, right = (
        int(each) for each in ngrams.pack(np.array([1, 2, 2, 3]), np.array([0, 1, 1, 1]), np.array([1, 3, 0, 3]))
    )
    assert rare < likely
    weights = {rare: 2.0, likely: 2.0, left: 1.0, right: 1.0}
    assert tables_of(Case({"news": weights}, {}, 1).plan())["news"] == {likely}
    elsewhere = {"news": {rare: 1.0, likely: 1.0}, "movies": {left: 1.0, right: 1.0}}
    assert tables_of(Case(elsewhere, {}, 1).plan())["news"] == {likely}
    assert tables_of(Case({"news": {**weights, rare: 4.0}}, {}, 1).plan())["news"] == {rare}


@settings(deadline=None)
@given(FADED, st.integers(1, 5), st.sampled_from(TRIGRAMS), st.sampled_from([0.01, 0.1, 1.0, 100.0]))
def test_more_weight_never_loses_a_key_its_place_to_one_that_shares_its_bigrams(
    weights: dict[int, float], capacity: int, which: int, more: float
) -> None:
    heavier = {**weights, which: weights.get(which, 0.0) + more}
    if which in served(Case({"movies": weights}, {}, capacity).plan(), "movies"):
        assert which in served(Case({"movies": heavier}, {}, capacity).plan(), "movies")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(PARENTS)), FADED), st.integers(0, 5), st.randoms(use_true_random=False))
def test_bigrams_that_waver_by_less_than_the_hysteresis_change_nothing(
    weights: dict[str, dict[int, float]], capacity: int, random: Random
) -> None:
    plan = Case(weights, {}, capacity).plan()
    wavered = {
        domain: {each: weight * random.uniform(1.0, 1.19) for each, weight in some.items()}
        for domain, some in weights.items()
    }
    again = Case(wavered, {}, capacity).plan(old=dict(plan.tables))
    assert tables_of(again) == tables_of(plan)
