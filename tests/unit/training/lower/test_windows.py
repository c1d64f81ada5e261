"""Batches of windows: each distinct window once, and the index of each token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmi.knowledge import unigram, window_keys, without_next, without_prev
from hmi.training.distill import DistillConfig
from hmi.training.distill.student import draw_batch
from hmi.training.lower import WindowBatch, states_error
from hmi.training.lower.windows import thin_windows

SEQUENCES = [np.array(each, np.int64) for each in ([2, 7, 8, 3], [2, 7, 8, 9, 7, 3], [2, 3])]


def test_index_gives_every_token_its_own_window() -> None:
    batch = WindowBatch.of(SEQUENCES)
    assert batch.ids.shape == batch.mask.shape == batch.index.shape == (3, 8)
    for row, ids in enumerate(SEQUENCES):
        padded = [-1, *ids.tolist(), -1]
        for place in range(len(ids)):
            assert batch.windows[batch.index[row, place]].tolist() == padded[place : place + 3]
    assert batch.mask.sum(1).tolist() == [4, 6, 2]


def test_each_distinct_window_occurs_once_before_padding() -> None:
    batch = WindowBatch.of(SEQUENCES)
    distinct = {tuple(window) for window in batch.windows.tolist()}
    assert len(distinct) == int(batch.index.max()) + 1
    assert len(batch.windows) % 128 == 0


def test_windows_of_some_sequences_are_thinned_as_a_tree_would() -> None:
    lengths = np.full(6000, 5)
    keys = window_keys(np.tile(np.array([5, 6, 7, 8, 9], np.int64), 6000), lengths)
    some = thin_windows(keys, lengths, 0.5, np.random.default_rng(0))
    touched = (keys != some).reshape(-1, 5)
    assert float(np.mean(touched.any(1))) == pytest.approx(0.5, abs=0.02)
    inner = np.zeros_like(touched)
    inner[touched.any(1), 1:4] = True  # windows that have both neighbours, of sequences that were thinned
    keys, some = keys[inner.reshape(-1)], some[inner.reshape(-1)]
    shares = [float(np.mean(some == shorter(keys))) for shorter in (without_next, without_prev, unigram)]
    assert shares == pytest.approx([0.225, 0.225, 0.25], abs=0.01)


def test_nothing_is_thinned_when_the_share_is_none() -> None:
    keys = window_keys(np.arange(5, 25, dtype=np.int64), np.array([20]))
    assert np.array_equal(thin_windows(keys, np.array([20]), 0.0, np.random.default_rng(0)), keys)


def test_corpora_give_equal_shares_when_one_is_much_larger() -> None:
    small = [np.full(4, 1, np.int64)] * 3
    large = [np.full(4, 2, np.int64)] * 5000
    config = DistillConfig(batch_size=8)
    first = [int(ids[0]) for step in range(16) for ids in draw_batch([small, large], step, config)]
    assert len(first) == 128
    assert first.count(1) == 64


def test_batch_of_a_step_is_deterministic() -> None:
    texts = [np.full(3 + number % 7, number, np.int64) for number in range(200)]
    config = DistillConfig(batch_size=4, seed=5)
    once = [[int(ids[0]) for ids in draw_batch([texts], step, config)] for step in (0, 17, 40)]
    assert [[int(ids[0]) for ids in draw_batch([texts], step, config)] for step in (0, 17, 40)] == once
    assert [int(ids[0]) for ids in draw_batch([texts], 0, DistillConfig(batch_size=4, seed=6))] != once[0]


def test_each_tokens_error_has_equal_weight_with_each_token() -> None:
    """One token whose states are a thousand times as long hides what is wrong with the others."""
    reference = torch.ones(1, 4, 8)
    reference[0, 0] = 1000
    ours = reference.clone()
    ours[0, 1] = 0  # all of its length is wrong
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert float(states_error([ours], [reference], mask)) < 1e-5
    assert float(states_error([ours], [reference], mask, each_token=True)) == pytest.approx(1 / 4)
    mask[0, 1] = False
    assert float(states_error([ours], [reference], mask, each_token=True)) == 0
