"""Each sequence runs to its end, and no page has two owners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.engine.decode.scheduler import GenerationScheduler, SchedulerLimits, SequenceState, pages_for
from hmi.models.layers import PAGE_TOKENS


class Sequence:
    """A prompt of some tokens, and how many more are generated."""

    def __init__(self, prompt: int, more: int, group: int = 0) -> None:
        self.left = more
        self.prefills = 0
        self.member: SequenceState[Sequence] = SequenceState(self, prompt, group)


def run(scheduler: GenerationScheduler[Sequence], arrivals: list[tuple[int, Sequence]], pages: int) -> list[Sequence]:
    """Run all to their ends. Returns them in the order in which they ended."""
    coming = sorted(arrivals, key=lambda each: each[0])
    ended: list[Sequence] = []
    here: set[Sequence] = set()
    delayed: set[Sequence] = set()  # that ran before the last prefill, and were not decoded since
    step = 0
    while coming or not scheduler.is_empty:
        while coming and coming[0][0] <= step:
            scheduler.add(coming[0][1].member)
            here.add(coming.pop(0)[1])
        found = scheduler.next_step()
        step += 1
        assert step < 10_000
        if found is None:
            continue
        owned = [page for sequence in here for page in sequence.member.pages]
        assert len(owned) == len(set(owned)) == pages - scheduler.free_pages
        in_step = {member.payload for member in found.members}
        for member in found.members:
            assert len(member.pages) == pages_for(member.tokens)
            member.payload.prefills += found.is_prefill
        if found.is_prefill:
            assert not delayed
            delayed = {sequence for sequence in here if sequence.member.pages} - in_step
        else:
            assert delayed <= in_step or scheduler.preemptions
            delayed = set()
        for member in list(found.members):
            member.payload.left -= 1
            member.tokens += 1
            if not member.payload.left:
                scheduler.leave(member)
                here.remove(member.payload)
                ended.append(member.payload)
    assert scheduler.free_pages == pages
    return ended


def run_out(scheduler: GenerationScheduler[Sequence]) -> list[Sequence]:
    """Let each leave with its first token. Returns them in the order in which they joined."""
    joined = []
    while (found := scheduler.next_step()) is not None:
        for member in found.members:
            joined.append(member.payload)
            scheduler.leave(member)
    return joined


sequences_drawn = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 70), st.integers(1, 60), st.integers(0, 3)), min_size=1, max_size=12
)


@given(sequences_drawn, st.integers(9, 40), st.integers(1, 6), st.integers(1, 200))
def test_each_sequence_runs_to_its_end_whenever_it_arrives(
    drawn: list[tuple[int, int, int, int]], pages: int, sequences: int, prefill: int
) -> None:
    arrivals = [(when, Sequence(prompt, more, group)) for when, prompt, more, group in drawn]
    scheduler: GenerationScheduler[Sequence] = GenerationScheduler(SchedulerLimits(pages, sequences, prefill))
    ended = run(scheduler, arrivals, pages)
    assert len(ended) == len(arrivals)
    assert scheduler.preemptions == sum(sequence.prefills - 1 for _, sequence in arrivals)


def test_the_newest_is_preempted_and_prefilled_again_when_pages_run_out() -> None:
    first, last = Sequence(PAGE_TOKENS, 3 * PAGE_TOKENS), Sequence(PAGE_TOKENS, 2 * PAGE_TOKENS)
    scheduler: GenerationScheduler[Sequence] = GenerationScheduler(SchedulerLimits(5, 8, 1000))
    ended = run(scheduler, [(0, first), (0, last)], 5)
    assert ended == [first, last]
    assert (first.prefills, last.prefills) == (1, 2)
    assert scheduler.preemptions == 1


@given(sequences_drawn, st.integers(9, 40), st.integers(1, 6), st.data())
def test_no_page_is_lost_when_sequences_leave_at_any_time(
    drawn: list[tuple[int, int, int, int]], pages: int, sequences: int, data: st.DataObject
) -> None:
    scheduler: GenerationScheduler[Sequence] = GenerationScheduler(SchedulerLimits(pages, sequences, 100))
    here = [Sequence(prompt, more, group) for _, prompt, more, group in drawn]
    for sequence in here:
        scheduler.add(sequence.member)
    while here:
        found = scheduler.next_step()
        assert found is not None
        assert {member.payload for member in found.members} <= set(here)
        for member in found.members:
            member.tokens += 1
        scheduler.leave(here.pop(data.draw(st.integers(0, len(here) - 1))).member)
    assert scheduler.is_empty
    assert scheduler.next_step() is None
    assert scheduler.free_pages == pages


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(1, 4))
def test_groups_join_in_turn_and_each_in_its_own_order(groups: list[int], sequences: int) -> None:
    scheduler: GenerationScheduler[Sequence] = GenerationScheduler(SchedulerLimits(100, sequences, 1000))
    coming = [Sequence(3, 1, group) for group in groups]
    for sequence in coming:
        scheduler.add(sequence.member)
    lines = [[sequence for sequence in coming if sequence.member.group == group] for group in dict.fromkeys(groups)]
    expected = [line[place] for place in range(len(groups)) for line in lines if place < len(line)]
    assert run_out(scheduler) == expected


def test_running_sequences_are_decoded_between_prefills_when_others_keep_arriving() -> None:
    scheduler: GenerationScheduler[Sequence] = GenerationScheduler(SchedulerLimits(100, 8, 1000))
    one = Sequence(5, 50)
    scheduler.add(one.member)
    for step in range(21):
        scheduler.add(Sequence(3, 1).member)
        found = scheduler.next_step()
        assert found is not None
        for member in found.members:
            member.tokens += 1
            if member.payload is not one:
                scheduler.leave(member)
        assert one.member.tokens == 6 + step // 2


def test_a_small_group_joins_before_the_rest_of_a_large_one_that_came_first() -> None:
    scheduler: GenerationScheduler[Sequence] = GenerationScheduler(SchedulerLimits(100, 1, 1000))
    crowd, one = [Sequence(3, 1, 1) for _ in range(100)], Sequence(3, 1, 2)
    for sequence in [*crowd, one]:
        scheduler.add(sequence.member)
    assert run_out(scheduler) == [crowd[0], one, *crowd[1:]]


def test_long_sequences_are_prefilled_alone() -> None:
    scheduler: GenerationScheduler[Sequence] = GenerationScheduler(SchedulerLimits(100, 8, 50))
    for length in (20, 20, 20, 300, 10):
        scheduler.add(Sequence(length, 1).member)
    sizes = []
    while not scheduler.is_empty:
        found = scheduler.next_step()
        assert found is not None
        assert found.is_prefill
        sizes.append([member.tokens for member in found.members])
        for member in list(found.members):
            scheduler.leave(member)
    assert sizes == [[20, 20], [20], [300], [10]]


def test_running_sequences_are_decoded_while_others_find_no_place() -> None:
    scheduler: GenerationScheduler[Sequence] = GenerationScheduler(SchedulerLimits(100, 1, 50))
    one, other = Sequence(5, 2), Sequence(5, 2)
    for sequence in (one, other):
        scheduler.add(sequence.member)
    first = scheduler.next_step()
    assert first is not None
    assert first.is_prefill
    one.member.tokens += 1
    step = scheduler.next_step()
    assert step is not None
    assert not step.is_prefill
    assert [member.payload for member in step.members] == [one]


def test_a_sequence_that_the_pool_cannot_hold_is_refused() -> None:
    scheduler: GenerationScheduler[Sequence] = GenerationScheduler(SchedulerLimits(2, 1, 50))
    with pytest.raises(ValueError, match="2 pages"):
        scheduler.add(Sequence(2 * PAGE_TOKENS + 1, 1).member)
    assert scheduler.is_empty


def test_a_sequence_that_leaves_while_it_waits_is_not_run() -> None:
    scheduler: GenerationScheduler[Sequence] = GenerationScheduler(SchedulerLimits(10, 1, 50))
    one = Sequence(5, 2)
    scheduler.add(one.member)
    scheduler.leave(one.member)
    scheduler.leave(one.member)
    assert scheduler.next_step() is None
    assert scheduler.free_pages == 10
