"""Whoever comes is run to the end, and no page has two owners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.engine.generation.roster import Decode, Limits, Member, Prefill, Roster, pages_for
from hmi.models.pages import PAGE_TOKENS


class Story:
    """One sequence: so many tokens at first, and so many more to come."""

    def __init__(self, prompt: int, more: int) -> None:
        self.left = more
        self.reads = 0
        self.member: Member[Story] = Member(self, prompt)


def run(roster: Roster[Story], arrivals: list[tuple[int, Story]], pages: int) -> list[Story]:
    """Who ended, in that order."""
    coming = sorted(arrivals, key=lambda each: each[0])
    ended: list[Story] = []
    here: set[Story] = set()
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
        for member in found.members:
            assert len(member.pages) == pages_for(member.tokens)
            member.what.reads += isinstance(found, Prefill)
        for member in list(found.members):
            member.what.left -= 1
            member.tokens += 1
            if not member.what.left:
                roster.leave(member)
                here.remove(member.what)
                ended.append(member.what)
    assert roster.free_pages == pages
    return ended


stories = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 70), st.integers(1, 60)), min_size=1, max_size=12)


@given(stories, st.integers(9, 40), st.integers(1, 6), st.integers(1, 200))
def test_everybody_is_run_to_the_end_whenever_they_come(
    drawn: list[tuple[int, int, int]], pages: int, sequences: int, prefill: int
) -> None:
    arrivals = [(when, Story(prompt, more)) for when, prompt, more in drawn]
    roster: Roster[Story] = Roster(Limits(pages, sequences, prefill))
    ended = run(roster, arrivals, pages)
    assert len(ended) == len(arrivals)
    assert roster.preemptions == sum(story.reads - 1 for _, story in arrivals)


def test_who_came_last_is_put_back_and_read_again_when_there_is_no_room() -> None:
    first, last = Story(PAGE_TOKENS, 3 * PAGE_TOKENS), Story(PAGE_TOKENS, 2 * PAGE_TOKENS)
    roster: Roster[Story] = Roster(Limits(5, 8, 1000))
    ended = run(roster, [(0, first), (0, last)], 5)
    assert ended == [first, last]
    assert (first.reads, last.reads) == (1, 2)
    assert roster.preemptions == 1


def test_long_ones_are_not_read_beside_others() -> None:
    roster: Roster[Story] = Roster(Limits(100, 8, 50))
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
    roster: Roster[Story] = Roster(Limits(100, 1, 50))
    one, other = Story(5, 2), Story(5, 2)
    for story in (one, other):
        roster.add(story.member)
    assert isinstance(roster.next_step(), Prefill)
    one.member.tokens += 1
    step = roster.next_step()
    assert isinstance(step, Decode)
    assert [member.what for member in step.members] == [one]


def test_a_sequence_that_the_pool_cannot_hold_is_refused() -> None:
    roster: Roster[Story] = Roster(Limits(2, 1, 50))
    with pytest.raises(ValueError, match="2 pages"):
        roster.add(Story(2 * PAGE_TOKENS + 1, 1).member)
    assert roster.is_empty


def test_who_leaves_before_its_turn_is_not_run() -> None:
    roster: Roster[Story] = Roster(Limits(10, 1, 50))
    one = Story(5, 2)
    roster.add(one.member)
    roster.leave(one.member)
    roster.leave(one.member)
    assert roster.next_step() is None
    assert roster.free_pages == 10
