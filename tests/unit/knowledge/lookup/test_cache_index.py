from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.knowledge import Keys
from hmi.knowledge.lookup.cache_index import AssociativeIndex

WAYS = 8

STEPS = st.lists(
    st.tuples(st.booleans(), st.integers(1, 2), st.lists(st.integers(0, 60), max_size=20, unique=True)), max_size=30
)


def keys_of(numbers: range | list[int]) -> Keys:
    return np.array(list(numbers), np.uint64)


def serve(index: AssociativeIndex, keys: Keys, group: int = 1) -> int:
    """Look up, use what is found, offer the rest; how many were found."""
    places = index.find(group, keys)
    found = places >= 0
    index.use(places[found])
    index.offer(group, np.unique(keys[~found]))
    return int(np.count_nonzero(found))


@given(places=st.integers(0, 40), steps=STEPS)
def test_every_place_holds_the_last_key_that_was_put_there(
    places: int, steps: list[tuple[bool, int, list[int]]]
) -> None:
    index = AssociativeIndex(places)
    assert index.places == places // WAYS * WAYS
    held: dict[int, tuple[int, int]] = {}
    evictions = 0
    for offers, group, numbers in steps:
        keys = keys_of(numbers)
        before = {content: place for place, content in held.items()}
        found = index.find(group, keys)
        assert found.tolist() == [before.get((group, number), -1) for number in numbers]
        if not offers:
            index.use(found[found >= 0])
            continue
        given_ = index.offer(group, keys)
        assert not (given_[found >= 0] >= 0).any()  # what is in already stays where it is
        taken = given_[given_ >= 0]
        assert len(set(taken.tolist())) == len(taken)
        for number, place in zip(numbers, given_.tolist(), strict=True):
            if place >= 0:
                evictions += place in held
                held[place] = (group, number)
    assert len(index) == len(held)
    assert index.evictions == evictions
    for place, (group, number) in held.items():
        assert index.find(group, keys_of([number])).tolist() == [place]


def test_all_keys_are_admitted_while_there_is_room() -> None:
    index = AssociativeIndex(100 * WAYS)
    places = index.offer(1, keys_of(range(100)))
    assert (places >= 0).all()
    assert index.evictions == 0


def test_one_key_of_two_groups_has_two_places() -> None:
    index = AssociativeIndex(10 * WAYS)
    places = [index.offer(group, keys_of([7])).item() for group in (1, 2, 3)]
    assert len(set(places)) == 3
    assert [index.find(group, keys_of([7])).item() for group in (1, 2, 3)] == places


def test_the_least_recently_used_leaves_first() -> None:
    index = AssociativeIndex(WAYS)  # one set
    for number in range(WAYS):
        index.offer(1, keys_of([number]))
    index.offer(1, keys_of([100]))
    assert index.find(1, keys_of([0])).item() == -1
    assert (index.find(1, keys_of(range(1, WAYS))) >= 0).all()


def test_reused_keys_stay_when_others_are_offered_once() -> None:
    index, fresh = AssociativeIndex(128 * WAYS), 1000
    hot = keys_of(range(256))  # a quarter of the places
    for _ in range(2):
        serve(index, hot)
    found = []
    for _ in range(40):
        for _ in range(8):  # between two uses, twice as many others as there are places
            serve(index, keys_of(range(fresh, fresh + 256)))
            fresh += 256
        found.append(serve(index, hot))
    # Not all: sets differ in how many of the hot keys are theirs.
    assert min(found[5:]) > 0.95 * len(hot)


def test_unused_keys_are_evicted_when_others_come_twice_each() -> None:
    index = AssociativeIndex(128 * WAYS)
    for _ in range(10):
        serve(index, keys_of(range(1000)))
    again = 0
    for start in range(10_000, 17_200, 600):
        serve(index, keys_of(range(start, start + 600)))
        again = serve(index, keys_of(range(start, start + 600)))
    assert again > 0.9 * 600  # the last of them find room at once


def test_an_offer_of_a_held_key_protects_it() -> None:
    index = AssociativeIndex(WAYS)
    for _ in range(2):
        assert len(index.offer(1, keys_of([0]))) == 1
    for number in range(100, 100 + 2 * WAYS):
        index.offer(1, keys_of([number]))
    assert index.find(1, keys_of([0])).item() >= 0


def test_a_returning_key_is_protected() -> None:
    index = AssociativeIndex(WAYS)
    for number in range(WAYS + 1):
        index.offer(1, keys_of([number]))
    index.offer(1, keys_of([0]))  # had to leave, and is wanted again
    for number in range(100, 100 + 2 * WAYS):
        index.offer(1, keys_of([number]))
    assert index.find(1, keys_of([0])).item() >= 0


@pytest.mark.parametrize("places", [0, WAYS - 1])
def test_nothing_is_kept_where_there_is_no_room_for_a_set(places: int) -> None:
    index = AssociativeIndex(places)
    assert index.offer(1, keys_of([1, 2])).tolist() == [-1, -1]
    assert index.find(1, keys_of([1, 2])).tolist() == [-1, -1]
    assert len(index) == 0


def test_no_key_at_all_is_no_error() -> None:
    index = AssociativeIndex(WAYS)
    assert len(index.offer(1, keys_of([]))) == len(index.find(1, keys_of([]))) == 0
