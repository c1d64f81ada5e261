from __future__ import annotations

import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hmi.knowledge import frequency
from hmi.knowledge.frequency import FrequencyCounter, FrequencyDelta
from hmi.knowledge.ngrams import Keys

CALLS = st.lists(
    st.tuples(st.sampled_from("xy"), st.sampled_from("ab"), st.lists(st.integers(0, 9), max_size=8), st.integers(0, 2))
)


@pytest.fixture
def merges_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frequency, "_SMALLEST_MERGE", 3)


def count(
    counter: FrequencyCounter, keys: list[int], *, hits: int = 0, domain: str = "movies", number: int = 1
) -> None:
    counter.count("base", domain, np.array(keys, np.uint64), np.arange(len(keys)) < hits, number)


def as_dict(delta: FrequencyDelta) -> dict[int, int]:
    return dict(zip(delta.keys.tolist(), delta.counts.tolist(), strict=True))


@pytest.mark.parametrize("merge_at", [1, 4, 65_536])
@given(calls=CALLS)
def test_counts_are_those_of_a_plain_counter(merge_at: int, calls: list[tuple[str, str, list[int], int]]) -> None:
    expected: dict[tuple[str, str], Counter[int]] = {}
    used: dict[tuple[str, str, int], list[int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frequency, "_SMALLEST_MERGE", merge_at)
        counter = FrequencyCounter(max_keys=10)
        for base, domain, keys, number in calls:
            hit = np.array(keys, np.uint64) % 2 == 0
            counter.count(base, domain, np.array(keys, np.uint64), hit, number)
            expected.setdefault((base, domain), Counter()).update(keys)
            usage = used.setdefault((base, domain, number), [0, 0])
            usage[0] += len(keys)
            usage[1] += int(hit.sum())
        deltas = counter.drain()
    assert [(d.base, d.domain, d.number) for d in deltas] == sorted(used)
    assert {(d.base, d.domain, d.number): [d.lookups, d.hits] for d in deltas} == used
    for place, counts in expected.items():
        found = [as_dict(d) for d in deltas if (d.base, d.domain) == place]
        assert found[-1] == dict(counts)  # of several versions the last has the n-grams
        assert not any(found[:-1])
    assert all((d.keys[1:] > d.keys[:-1]).all() for d in deltas)


def test_a_drain_takes_everything_away() -> None:
    counter = FrequencyCounter(10)
    count(counter, [1, 2, 2])
    assert [as_dict(delta) for delta in counter.drain()] == [{1: 1, 2: 2}]
    assert counter.drain() == []


def test_restored_counts_come_with_the_next_drain() -> None:
    counter = FrequencyCounter(10)
    count(counter, [1, 2, 2], hits=1)
    count(counter, [4], number=2)
    lost = counter.drain()
    count(counter, [2, 3], hits=2)
    counter.restore(lost)
    first, second = counter.drain()
    assert (first.number, first.lookups, first.hits, as_dict(first)) == (1, 5, 3, {})
    assert (second.number, second.lookups, second.hits, as_dict(second)) == (2, 1, 0, {1: 1, 2: 3, 3: 1, 4: 1})


@pytest.mark.usefixtures("merges_often")
def test_the_heaviest_stay_and_totals_are_exact_when_there_are_too_many_keys() -> None:
    counter = FrequencyCounter(max_keys=5)
    for round_ in range(40):
        count(counter, [1, 1, 1, 2, 2, 3, 100 + round_, 200 + round_], hits=3)
    (delta,) = counter.drain()
    assert (delta.lookups, delta.hits) == (320, 120)
    assert len(delta.keys) == 5
    assert {key: as_dict(delta)[key] for key in (1, 2, 3)} == {1: 120, 2: 80, 3: 40}


@pytest.mark.usefixtures("merges_often")
def test_memory_is_bounded_when_keys_never_repeat() -> None:
    counter = FrequencyCounter(max_keys=50)
    for start in range(0, 5000, 5):
        count(counter, list(range(start, start + 5)))
        (tally,) = counter._tallies.values()
        assert len(tally.keys) + tally.pending_keys <= 50 + 4 * 6 + 5


@pytest.mark.usefixtures("merges_often")
def test_nothing_is_lost_when_threads_count_and_drain_at_once() -> None:
    counter = FrequencyCounter(max_keys=1000)
    start, done = threading.Barrier(5), threading.Event()
    drained: list[FrequencyDelta] = []

    def keep_draining() -> None:
        start.wait(timeout=30)
        for turn in itertools.takewhile(lambda _: not done.is_set(), itertools.count()):
            if turn % 3:
                drained.extend(counter.drain())
            else:
                counter.restore(counter.drain())

    def keep_counting(seed: int) -> Counter[int]:
        start.wait(timeout=30)
        random, own = np.random.default_rng(seed), Counter[int]()
        for _ in range(200):
            keys = random.integers(0, 300, 20).tolist()
            count(counter, keys, hits=7)
            own.update(keys)
        return own

    with ThreadPoolExecutor(5) as pool:
        drainer = pool.submit(keep_draining)
        counted = [future.result() for future in [pool.submit(keep_counting, seed) for seed in range(4)]]
        done.set()
        drainer.result()
    drained.extend(counter.drain())
    found: Counter[int] = Counter()
    for delta in drained:
        found.update(as_dict(delta))
    assert found == sum(counted, Counter())
    assert sum(delta.lookups for delta in drained) == 4 * 200 * 20
    assert sum(delta.hits for delta in drained) == 4 * 200 * 7


@pytest.mark.usefixtures("merges_often")
def test_a_drain_waits_for_the_merge_that_holds_some_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    counter, merging, go_on = FrequencyCounter(max_keys=10), threading.Event(), threading.Event()
    sum_by_key = frequency._sum_by_key

    def slow(parts: list[tuple[Keys, NDArray[np.int64]]]) -> tuple[Keys, NDArray[np.int64]]:
        merging.set()
        assert go_on.wait(timeout=30)
        return sum_by_key(parts)

    monkeypatch.setattr(frequency, "_sum_by_key", slow)
    with ThreadPoolExecutor(2) as pool:
        counting = pool.submit(count, counter, [1, 2, 3, 4])
        assert merging.wait(timeout=30)
        draining = pool.submit(counter.drain)
        with pytest.raises(TimeoutError):
            draining.result(timeout=0.2)
        count(counter, [1])  # but counting goes on
        go_on.set()
        counting.result(timeout=30)
        found: Counter[int] = Counter()
        for delta in [*draining.result(timeout=30), *counter.drain()]:
            found.update(as_dict(delta))
    assert found == {1: 2, 2: 1, 3: 1, 4: 1}


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_keys"):
        FrequencyCounter(0)
