"""Batches are cut by numbers alone, so properties over random lengths say all there is to say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hmi.engine.scheduler import BatchLimits, Entry, Scheduler, cut_batches

entries = st.lists(
    st.builds(Entry, length=st.integers(1, 512), group=st.sampled_from(["a", "b"]), payload=st.integers()), max_size=300
)
limits = st.builds(
    BatchLimits,
    tokens=st.integers(1, 4096),
    rows=st.integers(1, 64),
    padding_share=st.floats(0, 1),
    window_batches=st.integers(1, 8),
)


@given(entries, limits)
def test_batches_hold_each_entry_once_within_limits_when_lengths_are_any(
    waiting: list[Entry[int]], limits: BatchLimits
) -> None:
    batches = cut_batches(waiting, limits)
    assert sorted(map(id, (e for batch in batches for e in batch))) == sorted(map(id, waiting))
    for batch in batches:
        assert len({entry.group for entry in batch}) == 1
        assert len(batch) <= limits.rows
        assert len(batch) == 1 or len(batch) * max(entry.length for entry in batch) <= limits.tokens


@given(st.lists(st.integers(3, 64), min_size=512, max_size=1500))
def test_padding_stays_under_a_twentieth_when_many_sequences_wait(lengths: list[int]) -> None:
    batches = cut_batches([Entry(length, "a", None) for length in lengths], BatchLimits(4096, 64, 0.05))
    padded = sum(len(batch) * batch[0].length for batch in batches)
    assert 1 - sum(lengths) / padded < 0.05 + 64 * 64 / padded  # the last, part-filled batch may be wasteful


@given(entries, limits)
def test_the_oldest_leave_first_when_more_wait_than_a_window_holds(
    waiting: list[Entry[int]], limits: BatchLimits
) -> None:
    scheduler: Scheduler[int] = Scheduler(limits)
    scheduler.add(waiting)
    seen = 0
    while len(scheduler):
        taken = [entry for batch in scheduler.take() for entry in batch]
        assert taken, "take must make progress"
        assert {id(entry) for entry in taken} == {id(entry) for entry in waiting[seen : seen + len(taken)]}
        seen += len(taken)
    assert seen == len(waiting)
    assert scheduler.take() == []
