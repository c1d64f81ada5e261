"""Which keys and values a step gathers together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hmi.engine.decode.cache import partition

PAGE = 2**14


def gathered(lengths: list[int], parts: list[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> int:
    return sum(len(rows) * max(lengths[row] for row in rows) for rows in parts)


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=60), st.sampled_from(["cpu", "cuda"]))
def test_each_sequence_is_in_one_part_and_parts_are_bounded(lengths: list[int], device: str) -> None:
    parts = partition(lengths, PAGE, device)
    assert sorted(row for rows in parts for row in rows.tolist()) == list(range(len(lengths)))
    for rows in parts:
        assert len(rows) == 1 or gathered(lengths, [rows]) * PAGE <= 2**28
    if device == "cpu":
        # A part more costs as much as 64 of these pages: nothing that is worth it is left undone between two parts.
        assert gathered(lengths, parts) + 64 * (len(parts) - 1) <= max(lengths) * len(lengths)


def test_a_long_sequence_is_a_part_of_its_own_beside_short_ones() -> None:
    parts = partition([3] * 20 + [500] + [4] * 11, PAGE, "cpu")
    assert [len(rows) for rows in parts] == [1, 31]
    assert parts[0].tolist() == [20]


def test_sequences_of_similar_length_stay_together() -> None:
    assert len(partition([20, 21, 22, 20, 21], PAGE, "cpu")) == 1
    assert len(partition([3] * 20 + [500], PAGE, "cuda")) == 2
    assert len(partition([3] * 5 + [500], PAGE, "cuda")) == 1
