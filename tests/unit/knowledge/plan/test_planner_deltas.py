from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hmi.knowledge import Function, functions_of
from hmi.knowledge.plan import PreviousTable, plan_tree
from tests.unit.knowledge.plans import BOTH, DELTA, ROW, UNIGRAMS, VOCABULARY, A, B, C, D, counts_of, key, tables_of
from tests.unit.knowledge.tables import FUNCTION, PARENTS, as_keys


def plan_with(
    weights: dict[str, dict[int, float]],
    old: dict[str, PreviousTable],
    rows: int,
    functions: Mapping[str, Function] = DELTA,
) -> dict[str, set[int]]:
    counts = {domain: counts_of(each) for domain, each in weights.items()}
    return tables_of(plan_tree(counts, PARENTS, functions, old, VOCABULARY, rows * ROW, ROW))


def aliased(functions: Mapping[str, Function], domain: str, keys: list[int], compared: list[int]) -> PreviousTable:
    """An old table of aliases that stand for rows of the parent's own function, and of rows that were compared."""
    above = functions[str(PARENTS[domain])].digest
    return PreviousTable(
        functions[domain].digest, as_keys(compared), as_keys(keys), above, {above: as_keys(keys)}, as_keys(compared),
        alias_share=(len(keys) + 1) / (len(keys) + len(compared) + 1),
    )  # fmt: skip


def test_a_domain_with_a_delta_chooses_whatever_its_ancestors_hold() -> None:
    held = plan_with({"general": {A: 9.0}, "reviews": {A: 5.0}, "movies": {A: 1.0}}, {}, 9)
    assert (held["general"], held["reviews"], held["movies"]) == ({A}, {A}, set())


def test_unigrams_of_the_root_are_no_hits_below_a_delta() -> None:
    token = int(UNIGRAMS[0])
    plan = plan_tree({"movies": counts_of({token: 2.0})}, PARENTS, DELTA, {}, VOCABULARY, ROW, ROW)
    assert plan.tables["movies"].tolist() == [token]
    assert plan.predicted == {"movies": 1.0}


def test_a_function_served_approximately_has_unigrams_of_its_own() -> None:
    """At its topmost domain, outside of the budget; those of the root are another function's rows."""
    functions = functions_of(FUNCTION, PARENTS, {"reviews": "delta"})
    counts = dataclasses.replace(counts_of({A: 2.0}), approximate_share=0.5)
    plan = tables_of(plan_tree({"movies": counts}, PARENTS, functions, {}, VOCABULARY, ROW, ROW))
    assert (plan["reviews"], plan["movies"]) == (set(), {A})  # `tables_of` leaves unigrams out
    whole = plan_tree({"movies": counts}, PARENTS, functions, {}, VOCABULARY, ROW, ROW).tables
    assert set(UNIGRAMS.tolist()) <= set(whole["reviews"].tolist())
    assert not set(UNIGRAMS.tolist()) & set(whole["movies"].tolist())
    exact = plan_tree({"movies": counts_of({A: 2.0})}, PARENTS, functions, {}, VOCABULARY, ROW, ROW).tables
    assert not len(exact["reviews"])


def test_what_is_known_to_be_an_alias_costs_eight_bytes() -> None:
    weights = {"general": {A: 1.0, B: 1.0, C: 1.0}, "reviews": {A: 1.0, B: 1.0, C: 1.0, D: 3.0}}
    assert plan_with(weights, {}, 3)["reviews"] == {A, B, D}
    known = {"reviews": aliased(DELTA, "reviews", [A, B, C], [])}
    assert plan_with(weights, known, 3)["reviews"] == {A, B, C, D}


def test_an_alias_costs_a_row_again_when_the_ancestors_lost_it() -> None:
    weights = {"general": {A: 1.0}, "reviews": {A: 1.0, B: 1.0, C: 1.0}}
    known = {"reviews": aliased(DELTA, "reviews", [A, B, C], [])}
    assert plan_with(weights, known, 1)["reviews"] == {A}
    assert plan_with(weights, known, 2)["reviews"] == {A, B}


def test_aliases_of_other_functions_are_worth_nothing() -> None:
    weights = {"general": {A: 1.0, B: 1.0}, "reviews": {A: 1.0, B: 1.0}}
    known = aliased(DELTA, "reviews", [A, B], [])
    assert plan_with(weights, {"reviews": known}, 2)["reviews"] == {A, B}
    for other in (dataclasses.replace(known, function="0" * 64), dataclasses.replace(known, alias_function="0" * 64)):
        assert plan_with(weights, {"reviews": other}, 1)["reviews"] == {A}


def test_an_alias_for_a_middle_function_holds_only_when_its_row_is_sure() -> None:
    weights = {"reviews": {A: 1.0, B: 1.0}, "movies": {A: 1.0, B: 1.0}}
    below = {"movies": aliased(BOTH, "movies", [A, B], [])}
    # reviews holds rows, and its ancestors give none that they might turn out to equal.
    assert plan_with(weights, below, 2, BOTH)["movies"] == {A, B}
    few = {"general": {A: 1.0, B: 1.0}, **weights, "movies": {A: 1.0, B: 1.0, C: 1.0, D: 1.0}}
    # Now reviews' rows may become aliases for the root's, and then what movies was compared with is gone.
    assert len(plan_with(few, below, 2, BOTH)["movies"]) == 2
    # Both were compared already: they stay rows.
    assert plan_with(few, {**below, "reviews": aliased(BOTH, "reviews", [], [A, B])}, 2, BOTH)["movies"] == {
        A,
        B,
        C,
    }


def test_children_of_different_functions_count_at_their_parent_by_the_share_of_their_aliases() -> None:
    functions = functions_of(FUNCTION, PARENTS, {"news": "d1", "reviews": "d2"})
    weights = {"news": {A: 4.0}, "reviews": {A: 4.0}, "general": {B: 6.0}}
    assert plan_with(weights, {}, 1, functions)["general"] == {A}
    halves = {domain: aliased(functions, domain, [C, D], [A, B]) for domain in ("news", "reviews")}
    assert plan_with(weights, halves, 1, functions)["general"] == {B}  # 0.6 x (8 + sqrt(8)) < 6 + sqrt(6) / 2
    assert plan_with(weights, halves, 2, functions)["general"] == {A, B}


def test_nothing_is_hoisted_to_another_function_where_it_would_spare_less_than_its_own_row() -> None:
    functions = functions_of(FUNCTION, PARENTS, {"news": "d1", "reviews": "d2"})
    weights = {"news": {A: 4.0}, "reviews": {A: 4.0}}
    few = {domain: aliased(functions, domain, [D], [A, B, C]) for domain in ("news", "reviews")}  # 2 of 5 each
    assert plan_with(weights, few, 9, functions)["general"] == set()
    assert plan_with({**weights, "general": {A: 1.0}}, few, 9, functions)["general"] == {A}
    some = {domain: aliased(functions, domain, [C, D], [A, B]) for domain in ("news", "reviews")}  # 3 of 5 each
    assert plan_with(weights, some, 9, functions)["general"] == {A}
    three = {"news": aliased(functions, "news", [D, C], [A, B, key(1, 1)])}  # a half, and a share that is not known
    assert plan_with(weights, three, 9, functions)["general"] == {A}
    kept = few | {"general": PreviousTable(FUNCTION, as_keys([A]))}
    assert plan_with(weights, kept, 9, functions)["general"] == set()
    almost = {domain: aliased(functions, domain, [*range(8)], [*range(8, 18)]) for domain in ("news", "reviews")}
    assert plan_with(weights, almost, 9, functions)["general"] == set()  # 9 of 19 each
    assert plan_with(weights, almost | {"general": PreviousTable(FUNCTION, as_keys([A]))}, 9, functions)["general"] == {
        A
    }


def test_aliases_are_kept_as_rows_are_when_something_a_little_heavier_comes() -> None:
    weights = {"reviews": {A: 1.0, B: 1.1}}
    assert plan_with(weights, {}, 1)["reviews"] == {B}
    assert plan_with(weights, {"reviews": aliased(DELTA, "reviews", [A], [])}, 1)["reviews"] == {A}
