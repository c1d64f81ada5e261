from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hmi.knowledge import ngrams
from tests.unit.knowledge.plans import Case, served, tables_of
from tests.unit.knowledge.tables import PARENTS

TRIGRAMS = [
    int(ngrams.pack(np.array([prev]), np.array([mid]), np.array([following]))[0])
    for prev in (-1, 0, 1)
    for mid in (0, 1)
    for following in (-1, 0, 1)
]
FADED = st.dictionaries(st.sampled_from(TRIGRAMS), st.sampled_from([0.0, 0.01, 0.3, 1.0, 1.1, 2.0, 10.0]))


def test_of_equally_frequent_windows_the_one_with_frequent_bigrams_is_held() -> None:
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
def test_bigrams_that_change_by_less_than_the_hysteresis_change_nothing(
    weights: dict[str, dict[int, float]], capacity: int, random: Random
) -> None:
    plan = Case(weights, {}, capacity).plan()
    wavered = {
        domain: {each: weight * random.uniform(1.0, 1.19) for each, weight in some.items()}
        for domain, some in weights.items()
    }
    again = Case(wavered, {}, capacity).plan(old=dict(plan.tables))
    assert tables_of(again) == tables_of(plan)
