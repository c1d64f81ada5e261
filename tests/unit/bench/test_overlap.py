"""Interval arithmetic on hand-made traces; a plain walk over every nanosecond is the oracle."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.bench.overlap import Interval, busy_share, common, hidden_share, length, union
from hmi.engine import Span

intervals_ = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=12
)


def _span(name: str, begin: int, end: int, thread: str = "t") -> Span:
    return Span(name, thread, begin, end, {})


def _nanoseconds(found: list[Interval]) -> set[int]:
    return {at for begin, end in found for at in range(begin, end)}


@given(intervals_)
def test_union_covers_the_same_times_once(found: list[Interval]) -> None:
    joined = union(found)
    assert _nanoseconds(joined) == _nanoseconds(found)
    assert length(joined) == len(_nanoseconds(found))
    assert all(one[1] < other[0] for one, other in itertools.pairwise(joined))


@given(intervals_, intervals_)
def test_common_is_what_lies_in_both(one: list[Interval], other: list[Interval]) -> None:
    shared = common(union(one), union(other))
    assert _nanoseconds(shared) == _nanoseconds(one) & _nanoseconds(other)
    assert length(shared) == len(_nanoseconds(shared))


def test_device_is_busy_from_its_first_to_its_last_moment_less_its_gaps() -> None:
    spans = [_span("fetch", 0, 100), _span("device", 100, 140), _span("device", 150, 180), _span("device", 180, 200)]
    assert busy_share(spans) == pytest.approx(90 / 100)


def test_device_is_not_busy_when_it_never_ran() -> None:
    assert busy_share([_span("fetch", 0, 100)]) == 0.0


def test_fetching_is_hidden_as_far_as_the_device_runs_meanwhile() -> None:
    spans = [
        _span("fetch", 0, 10),  # of the first batch: nothing to hide under
        _span("device", 10, 50),
        _span("fetch", 20, 40),
        _span("load-adapter", 45, 55),  # half of it reaches into the device's gap
        _span("device", 60, 90),
    ]
    assert hidden_share(spans) == pytest.approx((20 + 5) / (10 + 20 + 10))


def test_time_counts_once_when_a_load_lies_in_a_fetch_or_beside_another() -> None:
    spans = [
        _span("fetch", 0, 20),
        _span("load-adapter", 5, 15, "t"),
        _span("load-adapter", 10, 30, "other"),
        _span("device", 20, 40),
    ]
    assert hidden_share(spans) == pytest.approx(10 / 30)


def test_everything_is_hidden_when_nothing_was_fetched() -> None:
    assert hidden_share([_span("device", 0, 10)]) == 1.0


def test_other_stages_are_not_fetching() -> None:
    spans = [_span("tokenise", 0, 100), _span("device", 100, 200), _span("fetch", 120, 140), _span("finish", 200, 300)]
    assert hidden_share(spans) == 1.0
