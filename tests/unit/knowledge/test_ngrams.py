from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.errors import InvalidInput
from hmi.knowledge import ngrams

IDS = st.integers(0, ngrams.MAX_VOCABULARY - 1)
MAYBE_IDS = st.integers(-1, ngrams.MAX_VOCABULARY - 1)
SEQUENCES = st.lists(st.lists(IDS, max_size=6), max_size=6)


@given(st.lists(st.tuples(MAYBE_IDS, MAYBE_IDS, MAYBE_IDS), max_size=20))
def test_unpack_gives_back_what_was_packed(trigrams: list[tuple[int, int, int]]) -> None:
    ids = np.array(trigrams, np.int64).reshape(-1, 3)
    keys = ngrams.pack(ids[:, 0], ids[:, 1], ids[:, 2])
    assert keys.dtype == np.uint64
    assert (keys < 2**63).all()  # they are kept in signed columns
    np.testing.assert_array_equal(ngrams.unpack(keys), ids)


@given(SEQUENCES)
def test_windows_are_those_of_a_plain_loop(sequences: list[list[int]]) -> None:
    expected = [
        (sequence[i - 1] if i else -1, token, sequence[i + 1] if i + 1 < len(sequence) else -1)
        for sequence in sequences
        for i, token in enumerate(sequence)
    ]
    ids = np.array([token for sequence in sequences for token in sequence], np.int64)
    keys = ngrams.window_keys(ids, np.array([len(sequence) for sequence in sequences], np.int64))
    np.testing.assert_array_equal(ngrams.unpack(keys), np.array(expected, np.int64).reshape(-1, 3))


def test_window_at_a_start_is_the_bigram_without_prev() -> None:
    first = ngrams.window_keys(np.array([101, 7, 102]), np.array([3]))[0]
    inner = ngrams.window_keys(np.array([5, 101, 7]), np.array([3]))[1:2]
    assert first == ngrams.without_prev(inner)[0]


@given(MAYBE_IDS, IDS, MAYBE_IDS)
def test_shorter_ngrams_keep_the_middle_token(prev: int, mid: int, following: int) -> None:
    keys = ngrams.pack(np.array([prev]), np.array([mid]), np.array([following]))
    assert ngrams.unpack(ngrams.without_next(keys)).tolist() == [[prev, mid, -1]]
    assert ngrams.unpack(ngrams.without_prev(keys)).tolist() == [[-1, mid, following]]
    assert ngrams.unpack(ngrams.unigram(keys)).tolist() == [[-1, mid, -1]]


def test_unigrams_ascend_and_cover_the_vocabulary() -> None:
    keys = ngrams.unigrams(5)
    assert ngrams.unpack(keys).tolist() == [[-1, token, -1] for token in range(5)]
    assert (keys[1:] > keys[:-1]).all()


def test_only_windows_of_the_vocabulary_count_as_such() -> None:
    ids = np.array([[1, 2, 3], [-1, 4, -1], [1, -1, 3], [5, 2, 3], [1, 5, 3], [1, 2, 5]])
    keys = ngrams.pack(ids[:, 0], ids[:, 1], ids[:, 2])
    assert ngrams.in_vocabulary(keys, 5).tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("token", [-1, ngrams.MAX_VOCABULARY])
def test_token_id_is_refused_when_it_does_not_fit(token: int) -> None:
    with pytest.raises(InvalidInput, match=str(token)):
        ngrams.window_keys(np.array([3, token]), np.array([2]))


@pytest.mark.parametrize("lengths", [[1], [3], [3, -1], []])
def test_lengths_are_refused_when_they_do_not_add_up(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="lengths"):
        ngrams.window_keys(np.array([3, 4]), np.array(lengths, np.int64))
