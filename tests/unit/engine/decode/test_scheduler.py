"""Whoever comes is run to the end, and no page has two owners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.engine.decode.scheduler import Decode, GenerationScheduler, Prefill, SchedulerLimits, SequenceState, pages_for
from hmi.models.layers import PAGE_TOKENS


class Story:
    """One sequence: so many tokens at first, and so many more to come."""

    def __init__(self, prompt: int, more: int, group: int = 0) -> None:
        self.left = more
        self.reads = 0
        self.member: SequenceState[Story] = SequenceState(self, prompt, group)


def run(roster: GenerationScheduler[Story], arrivals: list[tuple[int, Story]], pages: int) -> list[Story]:
    """Who ended, in that order."""
    coming = sorted(arrivals, key=lambda each: each[0])
    ended: list[Story] = []
    here: set[Story] = set()
    held_up: set[Story] = set()  # that ran when others were read, and were not continued since
    step = 0
    while coming or not roster.is_empty:
        while coming and coming[0][0] <= step:
            roster.add(coming[0][1].member)
            here.add(coming.pop(0)[1])
        found = roster.next_step()
        step += 1
        assert step < 10_000
        if found is None:
            continue
        owned = [page for story in here for page in story.member.pages]
        assert len(owned) == len(set(owned)) == pages - roster.free_pages
        in_step = {member.payload for member in found.members}
        for member in found.members:
            assert len(member.pages) == pages_for(member.tokens)
            member.payload.reads += isinstance(found, Prefill)
        if isinstance(found, Prefill):
            assert not held_up
            held_up = {story for story in here if story.member.pages} - in_step
        else:
            assert held_up <= in_step or roster.preemptions
            held_up = set()
        for member in list(found.members):
            member.payload.left -= 1
            member.tokens += 1
            if not member.payload.left:
                roster.leave(member)
                here.remove(member.payload)
                ended.append(member.payload)
    assert roster.free_pages == pages
    return ended


def run_out(roster: GenerationScheduler[Story]) -> list[Story]:
    """Who joined, in that order; each leaves with its first token."""
    joined = []
    while (found := roster.next_step()) is not None:
        for member in found.members:
            joined.append(member.payload)
            roster.leave(member)
    return joined


stories = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 70), st.integers(1, 60), st.integers(0, 3)), min_size=1, max_size=12
)


@given(stories, st.integers(9, 40), st.integers(1, 6), st.integers(1, 200))
def test_everybody_is_run_to_the_end_whenever_they_come(
    drawn: list[tuple[int, int, int, int]], pages: int, sequences: int, prefill: int
) -> None:
    arrivals = [(when, Story(prompt, more, group)) for when, prompt, more, group in drawn]
    roster: GenerationScheduler[Story] = GenerationScheduler(SchedulerLimits(pages, sequences, prefill))
    ended = run(roster, arrivals, pages)
    assert len(ended) == len(arrivals)
    assert roster.preemptions == sum(story.reads - 1 for _, story in arrivals)


def test_who_came_last_is_put_back_and_read_again_when_there_is_no_room() -> None:
    first, last = Story(PAGE_TOKENS, 3 * PAGE_TOKENS), Story(PAGE_TOKENS, 2 * PAGE_TOKENS)
    roster: GenerationScheduler[Story] = GenerationScheduler(SchedulerLimits(5, 8, 1000))
    ended = run(roster, [(0, first), (0, last)], 5)
    assert ended == [first, last]
    assert (first.reads, last.reads) == (1, 2)
    assert roster.preemptions == 1


@given(stories, st.integers(9, 40), st.integers(1, 6), st.data())
def test_nothing_is_left_of_those_that_leave_at_any_time(
    drawn: list[tuple[int, int, int, int]], pages: int, sequences: int, data: st.DataObject
) -> None:
    roster: GenerationScheduler[Story] = GenerationScheduler(SchedulerLimits(pages, sequences, 100))
    here = [Story(prompt, more, group) for _, prompt, more, group in drawn]
    for story in here:
        roster.add(story.member)
    while here:
        found = roster.next_step()
        assert found is not None
        assert {member.payload for member in found.members} <= set(here)
        for member in found.members:
            member.tokens += 1
        roster.leave(here.pop(data.draw(st.integers(0, len(here) - 1))).member)
    assert roster.is_empty
    assert roster.next_step() is None
    assert roster.free_pages == pages


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(1, 4))
def test_groups_join_in_turn_and_each_in_its_own_order(groups: list[int], sequences: int) -> None:
    roster: GenerationScheduler[Story] = GenerationScheduler(SchedulerLimits(100, sequences, 1000))
    coming = [Story(3, 1, group) for group in groups]
    for story in coming:
        roster.add(story.member)
    lines = [[story for story in coming if story.member.group == group] for group in dict.fromkeys(groups)]
    expected = [line[place] for place in range(len(groups)) for line in lines if place < len(line)]
    assert run_out(roster) == expected


def test_a_stream_of_those_that_come_does_not_hold_up_those_that_run() -> None:
    roster: GenerationScheduler[Story] = GenerationScheduler(SchedulerLimits(100, 8, 1000))
    one = Story(5, 50)
    roster.add(one.member)
    for step in range(21):
        roster.add(Story(3, 1).member)
        found = roster.next_step()
        assert found is not None
        for member in found.members:
            member.tokens += 1
            if member.payload is not one:
                roster.leave(member)
        assert one.member.tokens == 6 + step // 2


def test_one_of_a_group_joins_before_a_crowd_that_came_before_it() -> None:
    roster: GenerationScheduler[Story] = GenerationScheduler(SchedulerLimits(100, 1, 1000))
    crowd, one = [Story(3, 1, 1) for _ in range(100)], Story(3, 1, 2)
    for story in [*crowd, one]:
        roster.add(story.member)
    assert run_out(roster) == [crowd[0], one, *crowd[1:]]


def test_long_ones_are_not_read_beside_others() -> None:
    roster: GenerationScheduler[Story] = GenerationScheduler(SchedulerLimits(100, 8, 50))
    for length in (20, 20, 20, 300, 10):
        roster.add(Story(length, 1).member)
    sizes = []
    while not roster.is_empty:
        found = roster.next_step()
        assert isinstance(found, Prefill)
        sizes.append([member.tokens for member in found.members])
        for member in list(found.members):
            roster.leave(member)
    assert sizes == [[20, 20], [20], [300], [10]]


def test_those_that_run_go_on_while_there_is_no_place_for_others() -> None:
    roster: GenerationScheduler[Story] = GenerationScheduler(SchedulerLimits(100, 1, 50))
    one, other = Story(5, 2), Story(5, 2)
    for story in (one, other):
        roster.add(story.member)
    assert isinstance(roster.next_step(), Prefill)
    one.member.tokens += 1
    step = roster.next_step()
    assert isinstance(step, Decode)
    assert [member.payload for member in step.members] == [one]


def test_a_sequence_that_the_pool_cannot_hold_is_refused() -> None:
    roster: GenerationScheduler[Story] = GenerationScheduler(SchedulerLimits(2, 1, 50))
    with pytest.raises(ValueError, match="2 pages"):
        roster.add(Story(2 * PAGE_TOKENS + 1, 1).member)
    assert roster.is_empty


def test_who_leaves_before_its_turn_is_not_run() -> None:
    roster: GenerationScheduler[Story] = GenerationScheduler(SchedulerLimits(10, 1, 50))
    one = Story(5, 2)
    roster.add(one.member)
    roster.leave(one.member)
    roster.leave(one.member)
    assert roster.next_step() is None
    assert roster.free_pages == 10
