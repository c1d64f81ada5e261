"""Batches are cut by numbers alone, so properties over random lengths cover them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hmi.engine.scheduler as scheduling
from hmi.engine.scheduler import BatchLimits, Entry, Scheduler

entries = st.lists(
    st.builds(Entry, length=st.integers(1, 512), group=st.sampled_from(["a", "b"]), payload=st.integers()), max_size=300
)
limits = st.builds(
    BatchLimits,
    tokens=st.integers(1, 4096),
    rows=st.integers(1, 256),
    padding_share=st.floats(0, 1),
    batch_cost=st.integers(0, 1000),
)
# What is added before each batch that is taken; an empty list lets the scheduler run dry.
arrivals = st.lists(entries, max_size=8)


def _numbered(lengths: list[int], group: str = "a") -> list[Entry[int]]:
    return [Entry(length, group, number) for number, length in enumerate(lengths)]


def cut_batches(entries: list[Entry[int]], limits: BatchLimits) -> list[list[Entry[int]]]:
    """All batches of entries that wait together."""
    scheduler: Scheduler[int] = Scheduler(limits)
    scheduler.add(entries)
    return list(iter(scheduler.take_batch, []))


def _padded(batch: list[Entry[int]]) -> int:
    return len(batch) * max(entry.length for entry in batch)


def _wasted(batches: list[list[Entry[int]]]) -> float:
    """Share of padding in the tokens of all batches."""
    return 1 - sum(entry.length for batch in batches for entry in batch) / sum(_padded(batch) for batch in batches)


@given(entries, limits)
def test_batches_hold_each_entry_once_within_limits_when_lengths_are_any(
    waiting: list[Entry[int]], limits: BatchLimits
) -> None:
    batches = cut_batches(waiting, limits)
    assert sorted(map(id, (e for batch in batches for e in batch))) == sorted(map(id, waiting))
    for batch in batches:
        assert len({entry.group for entry in batch}) == 1
        assert len(batch) <= limits.rows
        assert len(batch) == 1 or _padded(batch) <= limits.tokens
        assert [entry.length for entry in batch] == sorted((entry.length for entry in batch), reverse=True)


@given(entries, limits)
def test_padding_keeps_to_its_share_when_a_batch_is_over_a_quarter_of_the_budget(
    waiting: list[Entry[int]], limits: BatchLimits
) -> None:
    for batch in cut_batches(waiting, limits):
        if _padded(batch) > limits.tokens / 4:
            assert _wasted([batch]) <= limits.padding_share + 1e-9


@given(arrivals, limits)
def test_every_batch_has_the_oldest_in_it_when_new_ones_keep_coming(
    arrivals: list[list[Entry[int]]], limits: BatchLimits
) -> None:
    """So a sequence behind n waiting ones leaves with one of the next n + 1 batches."""
    scheduler: Scheduler[int] = Scheduler(limits)
    waiting: dict[int, Entry[int]] = {}  # in order of arrival
    number = 0
    for coming in [*arrivals, *([[]] * sum(map(len, arrivals)))]:
        new = [Entry(entry.length, entry.group, number + index) for index, entry in enumerate(coming)]
        number += len(new)
        scheduler.add(new)
        waiting |= {entry.payload: entry for entry in new}
        batch = scheduler.take_batch()
        if waiting:
            assert next(iter(waiting)) in {entry.payload for entry in batch}
        for entry in batch:
            assert waiting.pop(entry.payload) is entry
        assert len(scheduler) == len(waiting)
    assert not waiting
    assert scheduler.take_batch() == []


@given(arrivals, limits)
def test_sequences_of_one_length_leave_in_the_order_of_arrival(
    arrivals: list[list[Entry[int]]], limits: BatchLimits
) -> None:
    scheduler: Scheduler[int] = Scheduler(limits)
    number = 0
    last: dict[tuple[str, int], int] = {}
    for coming in [*arrivals, *([[]] * sum(map(len, arrivals)))]:
        scheduler.add([Entry(entry.length, entry.group, number + index) for index, entry in enumerate(coming)])
        number += len(coming)
        for entry in scheduler.take_batch():
            assert last.get((entry.group, entry.length), -1) < entry.payload
            last[entry.group, entry.length] = entry.payload


@given(arrivals, limits)
def test_batches_are_the_same_when_the_same_comes_in_the_same_order(
    arrivals: list[list[Entry[int]]], limits: BatchLimits
) -> None:
    def run() -> list[list[Entry[int]]]:
        scheduler: Scheduler[int] = Scheduler(limits)
        batches = []
        for coming in [*arrivals, *([[]] * sum(map(len, arrivals)))]:
            scheduler.add(coming)
            batches.append(scheduler.take_batch())
        return batches

    assert run() == run()


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 12)), min_size=1, max_size=6, unique_by=lambda x: x[0]))
def test_no_cut_is_cheaper_when_all_ways_of_cutting_are_tried(waiting: list[tuple[int, int]]) -> None:
    """Few enough of each length for a cut at lengths alone to be all there is."""
    limits = BatchLimits(tokens=4096, rows=256, padding_share=1, batch_cost=96)
    waiting.sort(reverse=True)

    def cheapest(rest: tuple[tuple[int, int], ...]) -> int:
        if not rest:
            return 0
        return min(
            rest[0][0] * sum(count for _, count in rest[:end]) + limits.batch_cost + cheapest(rest[end:])
            for end in range(1, len(rest) + 1)
        )

    batches = cut_batches(_numbered([length for length, count in waiting for _ in range(count)]), limits)
    assert sum(_padded(batch) + limits.batch_cost for batch in batches) == cheapest(tuple(waiting))


def test_few_short_sequences_run_together_when_nothing_else_waits() -> None:
    batches = cut_batches(_numbered([5, 30, 12, 3, 24]), BatchLimits(4096, 256, 0.05, batch_cost=96))
    assert len(batches) == 1


def test_a_full_batch_has_no_padding_when_as_many_of_one_length_wait() -> None:
    scheduler: Scheduler[int] = Scheduler(BatchLimits(4096, 256, 0.05))
    scheduler.add(_numbered([16] * 300 + [17] * 10))
    assert [entry.length for entry in scheduler.take_batch()] == [16] * 256


def test_a_sequence_over_the_budget_runs_alone() -> None:
    batches = cut_batches(_numbered([100, 101, 100, 500]), BatchLimits(tokens=150, rows=8, padding_share=1))
    assert [len(batch) for batch in batches] == [1, 1, 1, 1]


@pytest.mark.parametrize("longest", [64, 512])
def test_batches_are_at_least_half_full_on_average_when_thousands_wait(longest: int) -> None:
    rng = random.Random(5)
    batches = cut_batches(_numbered([rng.randint(3, longest) for _ in range(5000)]), BatchLimits(4096, 256, 0.05))
    assert sum(map(_padded, batches)) / len(batches) >= 2048
    assert _wasted(batches) < 0.02


def test_the_work_for_one_batch_stays_small_when_a_hundred_thousand_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    cut_around = scheduling._cut_around

    def count(pieces: list[tuple[int, int]], wanted: int, limits: BatchLimits) -> list[tuple[int, int]]:
        tried.append(len(pieces))
        return cut_around(pieces, wanted, limits)

    monkeypatch.setattr(scheduling, "_cut_around", count)
    rng = random.Random(6)
    scheduler: Scheduler[int] = Scheduler(BatchLimits(4096, 256, 0.05))
    scheduler.add(_numbered([rng.randint(3, 512) for _ in range(100_000)]))
    for _ in range(200):
        scheduler.take_batch()
    assert tried
    assert max(tried) < 1000
