"""Transactions come to the size that takes the time allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmi.catalog import ChunkedTransactions, Database


@pytest.fixture
def pieces(tmp_path: Path) -> ChunkedTransactions:
    return ChunkedTransactions(Database(f"sqlite:///{tmp_path / 'none.db'}"), target_seconds=0.02)


@pytest.mark.parametrize("rows_per_second", [20_000, 300_000])
def test_a_transaction_takes_the_time_allowed_after_a_few(pieces: ChunkedTransactions, rows_per_second: int) -> None:
    for _ in range(20):
        pieces.adapt(pieces.rows, pieces.rows / rows_per_second)
    assert pieces.rows == pytest.approx(0.02 * rows_per_second, rel=0.01)


def test_the_next_one_is_smaller_when_one_took_too_long(pieces: ChunkedTransactions) -> None:
    before = pieces.rows
    pieces.adapt(before, 0.03)
    assert pieces.rows == pytest.approx(before * 2 / 3, abs=1)
    pieces.adapt(pieces.rows, 10.0)  # a hiccup of the disk is not taken at its word
    assert pieces.rows == pytest.approx(before / 6, abs=1)


def test_the_size_has_bounds_whatever_is_measured(pieces: ChunkedTransactions) -> None:
    for _ in range(50):
        pieces.adapt(pieces.rows, 10.0)
    assert pieces.rows == 50
    for _ in range(50):
        pieces.adapt(pieces.rows, 1e-9)
    assert pieces.rows == 20_000


def test_nothing_is_learnt_of_a_small_rest(pieces: ChunkedTransactions) -> None:
    before = pieces.rows
    pieces.adapt(1, 0.001)
    assert pieces.rows == before
    pieces.adapt(1, 0.05)  # unless even that takes too long
    assert pieces.rows < before
