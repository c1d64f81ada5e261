"""Transactions come to the size that takes the time allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmi.catalog import ChunkedTransactions, Database


@pytest.fixture
def chunks(tmp_path: Path) -> ChunkedTransactions:
    return ChunkedTransactions(Database(f"sqlite:///{tmp_path / 'none.db'}"), target_seconds=0.02)


@pytest.mark.parametrize("rows_per_second", [20_000, 300_000])
def test_a_transaction_takes_the_time_allowed_after_a_few(chunks: ChunkedTransactions, rows_per_second: int) -> None:
    for _ in range(20):
        chunks.adapt(chunks.rows, chunks.rows / rows_per_second)
    assert chunks.rows == pytest.approx(0.02 * rows_per_second, rel=0.01)


def test_the_next_one_is_smaller_when_one_took_too_long(chunks: ChunkedTransactions) -> None:
    before = chunks.rows
    chunks.adapt(before, 0.03)
    assert chunks.rows == pytest.approx(before * 2 / 3, abs=1)
    chunks.adapt(chunks.rows, 10.0)  # a hiccup of the disk is not taken at its word
    assert chunks.rows == pytest.approx(before / 6, abs=1)


def test_the_size_has_bounds(chunks: ChunkedTransactions) -> None:
    for _ in range(50):
        chunks.adapt(chunks.rows, 10.0)
    assert chunks.rows == 50
    for _ in range(50):
        chunks.adapt(chunks.rows, 1e-9)
    assert chunks.rows == 20_000


def test_a_small_remainder_changes_nothing(chunks: ChunkedTransactions) -> None:
    before = chunks.rows
    chunks.adapt(1, 0.001)
    assert chunks.rows == before
    chunks.adapt(1, 0.05)  # unless even that takes too long
    assert chunks.rows < before
