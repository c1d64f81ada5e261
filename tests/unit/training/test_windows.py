"""Batches of windows: each distinct one once, and each token led to its own."""

from __future__ import annotations

import numpy as np
import pytest

from hmi.knowledge.ngrams import unigram, window_keys, without_next, without_prev
from hmi.training.distil import DistilConfig, drawn
from hmi.training.windows import WindowBatch, hide_neighbours

SEQUENCES = [np.array(each, np.int64) for each in ([2, 7, 8, 3], [2, 7, 8, 9, 7, 3], [2, 3])]


def test_every_token_is_led_to_its_own_window() -> None:
    batch = WindowBatch.of(SEQUENCES)
    assert batch.ids.shape == batch.mask.shape == batch.index.shape == (3, 8)
    for row, ids in enumerate(SEQUENCES):
        padded = [-1, *ids.tolist(), -1]
        for place in range(len(ids)):
            assert batch.windows[batch.index[row, place]].tolist() == padded[place : place + 3]
    assert batch.mask.sum(1).tolist() == [4, 6, 2]


def test_each_distinct_window_is_there_once_before_the_filling() -> None:
    batch = WindowBatch.of(SEQUENCES)
    distinct = {tuple(window) for window in batch.windows.tolist()}
    assert len(distinct) == int(batch.index.max()) + 1
    assert len(batch.windows) % 128 == 0


def test_neighbours_go_in_equal_parts_when_they_are_hidden() -> None:
    keys = window_keys(np.tile(np.array([5, 6, 7, 8, 9], np.int64), 6000), np.full(6000, 5))
    some = hide_neighbours(keys, 0.3, np.random.default_rng(0))
    inner = (keys != without_next(keys)) & (keys != without_prev(keys))
    keys, some = keys[inner], some[inner]
    shares = [float(np.mean(some == shorter(keys))) for shorter in (without_next, without_prev, unigram)]
    assert shares == pytest.approx([0.1, 0.1, 0.1], abs=0.01)
    assert float(np.mean(some == keys)) == pytest.approx(0.7, abs=0.02)


def test_nothing_is_hidden_when_the_share_is_none() -> None:
    keys = window_keys(np.arange(5, 25, dtype=np.int64), np.array([20]))
    assert np.array_equal(hide_neighbours(keys, 0.0, np.random.default_rng(0)), keys)


def test_corpora_give_equal_shares_when_one_is_much_larger() -> None:
    small = [np.full(4, 1, np.int64)] * 3
    large = [np.full(4, 2, np.int64)] * 5000
    config = DistilConfig(batch_size=8)
    first = [int(ids[0]) for step in range(16) for ids in drawn([small, large], step, config)]
    assert len(first) == 128
    assert first.count(1) == 64


def test_a_step_has_the_same_texts_whenever_it_is_asked_for() -> None:
    texts = [np.full(3 + number % 7, number, np.int64) for number in range(200)]
    config = DistilConfig(batch_size=4, seed=5)
    once = [[int(ids[0]) for ids in drawn([texts], step, config)] for step in (0, 17, 40)]
    assert [[int(ids[0]) for ids in drawn([texts], step, config)] for step in (0, 17, 40)] == once
    assert [int(ids[0]) for ids in drawn([texts], 0, DistilConfig(batch_size=4, seed=6))] != once[0]
