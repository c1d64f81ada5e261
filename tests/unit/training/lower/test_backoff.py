"""Each text gets the n-grams of a tree built from all the others."""

from __future__ import annotations

from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hmi.knowledge import Keys, unigram, unpack, window_keys, without_next, without_prev
from hmi.training.lower import SimulatedTree, leave_one_out
from hmi.training.lower.backoff import longest_known

Texts = list[list[int]]
texts = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=7), min_size=1, max_size=6)


def windows_of(some: Texts) -> Keys:
    return window_keys(np.array(list(chain.from_iterable(some)), np.int64), np.array([len(each) for each in some]))


def known_of(some: Texts) -> Keys:
    """All that a tree of these texts could hold, unigrams left out."""
    if not some:
        return np.zeros(0, np.uint64)
    windows = windows_of(some)
    return np.unique(np.concatenate([windows, without_next(windows), without_prev(windows)]))


@given(texts)
def test_a_text_gets_what_a_tree_of_all_the_others_gives(some: Texts) -> None:
    expected = [
        longest_known(windows_of([text]), known_of(some[:place] + some[place + 1 :])) for place, text in enumerate(some)
    ]
    found = leave_one_out(windows_of(some), np.array([len(each) for each in some]))
    assert np.array_equal(found, np.concatenate(expected))


@given(texts, texts)
def test_longest_known_ngram_replaces_a_window(asked: Texts, others: Texts) -> None:
    windows, known = windows_of(asked), set(known_of(others).tolist())
    for window, found in zip(windows, longest_known(windows, known_of(others)), strict=True):
        one = np.array([window])
        choices = [int(shorter(one)[0]) for shorter in (lambda keys: keys, without_next, without_prev)]
        wanted = next((each for each in choices if each in known), int(unigram(one)[0]))
        assert int(found) == wanted


@given(texts, texts)
def test_what_no_other_text_has_is_estimated_where_there_is_an_estimator(some: Texts, others: Texts) -> None:
    tree = SimulatedTree(estimates=True)
    view = tree.view_train(windows_of(some), np.array([len(each) for each in some]))
    assert view.estimated is not None
    assert np.array_equal(view.keys, windows_of(some))
    expected = [
        ~np.isin(windows_of([text]), windows_of(rest) if (rest := some[:place] + some[place + 1 :]) else [])
        for place, text in enumerate(some)
    ]
    assert np.array_equal(view.estimated, np.concatenate(expected))
    view = tree.view_other(windows_of(others), np.array([len(each) for each in others]))
    assert view.estimated is not None
    assert np.array_equal(view.estimated, ~np.isin(windows_of(others), windows_of(some)))


def test_duplicate_texts_know_each_other() -> None:
    windows = windows_of([[1, 2, 3], [1, 2, 3], [4]])
    found = leave_one_out(windows, np.array([3, 3, 1]))
    assert np.array_equal(found[:6], windows[:6])
    assert unpack(found[6:]).tolist() == [[-1, 4, -1]]
