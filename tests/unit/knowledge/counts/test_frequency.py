from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hmi.knowledge import Keys
from hmi.knowledge.counts import FrequencyCounter, LookupCounts, frequency
from hmi.knowledge.counts.key_counts import KeyCounts

CALLS = st.lists(
    st.tuples(st.sampled_from("xy"), st.sampled_from("ab"), st.lists(st.integers(0, 9), max_size=8), st.integers(0, 2))
)


@pytest.fixture
def merges_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frequency, "_SMALLEST_MERGE", 3)
    monkeypatch.setattr(frequency, "_ARRAY_KEYS", 0)


def count(
    counter: FrequencyCounter,
    keys: Sequence[int] | Keys,
    *,
    hits: int = 0,
    domain: str = "movies",
    number: int = 1,
    **found: Any,
) -> None:
    counter.count("base", domain, np.array(keys, np.uint64), np.arange(len(keys)) < hits, number, **found)


def kept_keys(counter: FrequencyCounter) -> int:
    return sum(len(place.key_counts) for place in counter._domains.values())


def waiting_keys(counter: FrequencyCounter) -> int:
    waiting = sum(place.pending_keys for place in counter._domains.values())
    assert waiting == counter._pending_keys
    return waiting


def as_dict(delta: LookupCounts) -> dict[int, int]:
    return dict(zip(delta.keys.tolist(), delta.counts.tolist(), strict=True))


@pytest.mark.parametrize("merge_at", [1, 4, 65_536])
@given(calls=CALLS)
def test_counts_are_those_of_a_plain_counter(merge_at: int, calls: list[tuple[str, str, list[int], int]]) -> None:
    expected: dict[tuple[str, str], Counter[int]] = {}
    used: dict[tuple[str, str, int], list[int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frequency, "_SMALLEST_MERGE", merge_at)
        counter = FrequencyCounter(max_keys=10, total_keys=40)
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


def test_a_drain_removes_all_counts() -> None:
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


def test_inherited_hits_and_approximate_lookups_are_added_up() -> None:
    counter = FrequencyCounter(10)
    count(counter, [1, 2, 2], hits=3, inherited=2)
    count(counter, [3, 4], hits=1, inherited=1, approximate=True)
    count(counter, [5], number=2, approximate=True)
    counter.restore(counter.drain())
    first, second = counter.drain()
    assert (first.lookups, first.hits, first.inherited, first.approximate) == (5, 4, 3, 2)
    assert (second.lookups, second.hits, second.inherited, second.approximate) == (1, 0, 0, 1)


@pytest.mark.usefixtures("merges_often")
def test_the_heaviest_stay_and_totals_are_exact_when_there_are_too_many_keys() -> None:
    counter = FrequencyCounter(max_keys=5)
    for round_ in range(40):
        count(counter, [1, 1, 1, 2, 2, 3, 100 + round_, 200 + round_], hits=3)
    (delta,) = counter.drain()
    assert (delta.lookups, delta.hits) == (320, 120)
    assert len(delta.keys) == 5
    assert {key: as_dict(delta)[key] for key in (1, 2)} == {1: 120, 2: 80}


def test_heavy_ngrams_are_kept_when_ten_million_others_come_once() -> None:
    heavy = np.arange(1000, dtype=np.uint64) * np.uint64(2**40) + np.uint64(2**62)
    counter = FrequencyCounter(max_keys=200_000)
    lookups = 0
    for start in range(0, 10_000_000, 100_000):
        once = np.arange(start, start + 100_000, dtype=np.uint64) * np.uint64(2**21)
        # A little of each in every portion, never more than what comes once: no portion shows which are heavy.
        count(counter, np.concatenate([once, heavy]))
        lookups += len(once) + len(heavy)
    (delta,) = counter.drain()
    assert len(delta.keys) == 200_000
    assert delta.lookups == lookups
    assert 0 < delta.error <= lookups / 200_000 < 100
    counts = delta.counts[np.isin(delta.keys, heavy)]
    assert len(counts) == 1000
    assert counts.min() >= 100 - delta.error


@settings(deadline=None)
@given(calls=CALLS, max_keys=st.integers(1, 4), total_keys=st.integers(1, 6), merge_at=st.integers(1, 6))
def test_no_count_is_further_off_than_its_error_bound(
    calls: list[tuple[str, str, list[int], int]], max_keys: int, total_keys: int, merge_at: int
) -> None:
    looked_up: dict[tuple[str, str], Counter[int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frequency, "_SMALLEST_MERGE", merge_at)
        patch.setattr(frequency, "_ARRAY_KEYS", 0)
        counter = FrequencyCounter(max_keys, total_keys)
        for base, domain, keys, number in calls:
            counter.count(base, domain, np.array(keys, np.uint64), np.zeros(len(keys), bool), number)
            looked_up.setdefault((base, domain), Counter()).update(keys)
        deltas = {(delta.base, delta.domain): delta for delta in counter.drain()}  # the last of each domain
    everything = sum(each.total() for each in looked_up.values())
    for place, counts in looked_up.items():
        found = as_dict(deltas[place])
        error = deltas[place].error
        assert len(found) <= max_keys
        assert error <= counts.total() / max_keys + everything / total_keys
        assert all(found[key] <= counts[key] for key in found)
        assert all(counts[key] <= found.get(key, 0) + error for key in counts)


def test_an_error_bound_is_kept_when_counts_are_restored() -> None:
    counter = FrequencyCounter(max_keys=1)
    count(counter, [1, 1, 2])
    (lost,) = counter.drain()
    assert (as_dict(lost), lost.error) == ({1: 2}, 1)
    count(counter, [3, 3, 3, 4, 4])
    counter.restore([lost])
    (delta,) = counter.drain()
    assert as_dict(delta) == {3: 3}
    assert delta.error == 1 + 2


@pytest.mark.usefixtures("merges_often")
def test_memory_is_bounded_when_keys_never_repeat() -> None:
    counter = FrequencyCounter(max_keys=50)
    for start in range(0, 5000, 5):
        count(counter, list(range(start, start + 5)))
        assert kept_keys(counter) <= 50
        assert waiting_keys(counter) <= 4 * (100 // 8) + 5


@pytest.mark.usefixtures("merges_often")
def test_memory_is_bounded_in_all_when_there_are_many_domains() -> None:
    counter = FrequencyCounter(max_keys=50, total_keys=160)
    for turn, start in enumerate(range(0, 5_000, 5)):
        count(counter, list(range(start, start + 5)), domain=f"domain{turn % 200}")
        assert kept_keys(counter) <= 160 + 160 // 16
        assert waiting_keys(counter) <= 4 * (160 // 8) + 5
    deltas = counter.drain()
    assert len(deltas) == 200
    assert sum(delta.lookups for delta in deltas) == 5_000


@pytest.mark.usefixtures("merges_often")
def test_the_lightest_keys_of_all_domains_are_dropped_first() -> None:
    counter = FrequencyCounter(max_keys=50, total_keys=16)
    for turn in range(20):
        count(counter, [1, 2, 3, 4], domain="busy")
        count(counter, [100 + turn], domain="quiet")
    found = {delta.domain: as_dict(delta) for delta in counter.drain()}
    assert found["busy"] == dict.fromkeys([1, 2, 3, 4], 20)
    assert len(found["quiet"]) < 20


def test_counted_keys_may_be_written_over_afterwards() -> None:
    counter, keys = FrequencyCounter(10), np.array([7, 8], np.uint64)
    counter.count("base", "movies", keys, np.zeros(2, bool), 1)
    keys[:] = 0
    (delta,) = counter.drain()
    assert as_dict(delta) == {7: 1, 8: 1}


@pytest.mark.usefixtures("merges_often")
def test_nothing_is_lost_when_threads_count_and_drain_at_once() -> None:
    counter = FrequencyCounter(max_keys=1000)
    start, done = threading.Barrier(5), threading.Event()
    drained: list[LookupCounts] = []

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
    counter, merging, resume = FrequencyCounter(max_keys=10), threading.Event(), threading.Event()
    add = KeyCounts.add

    def slow(self: KeyCounts, keys: Keys, counts: NDArray[np.int64], tenants: NDArray[np.uint64]) -> None:
        merging.set()
        assert resume.wait(timeout=30)
        add(self, keys, counts, tenants)

    monkeypatch.setattr(KeyCounts, "add", slow)
    with ThreadPoolExecutor(2) as pool:
        counting = pool.submit(count, counter, [1, 2, 3, 4])
        assert merging.wait(timeout=30)
        draining = pool.submit(counter.drain)
        with pytest.raises(TimeoutError):
            draining.result(timeout=0.2)
        count(counter, [1])  # and counting continues
        resume.set()
        counting.result(timeout=30)
        found: Counter[int] = Counter()
        for delta in [*draining.result(timeout=30), *counter.drain()]:
            found.update(as_dict(delta))
    assert found == {1: 2, 2: 1, 3: 1, 4: 1}


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_keys"):
        FrequencyCounter(0)
    with pytest.raises(ValueError, match="total_keys"):
        FrequencyCounter(1, 0)


@given(
    st.lists(st.lists(st.tuples(st.sampled_from([None, 0, 1, 2, 4]), st.integers(0, 6)), min_size=1), max_size=8),
    st.booleans(),
)
def test_bitmaps_say_who_asked_when_counts_are_merged_and_restored(
    batches: list[list[tuple[int | None, int]]], restores: bool
) -> None:
    counter, expected = FrequencyCounter(max_keys=100), dict[int, list[int]]()
    for number, tenants in enumerate(batches):
        keys = [1 + (number + place) % 7 for place in range(sum(count for _, count in tenants))]
        asking = [tenant for tenant, count in tenants for _ in range(count)]
        counter.count("base", "news", np.array(keys, np.uint64), np.zeros(len(keys), bool), 1, tenants=tenants)
        for key, tenant in zip(keys, asking, strict=True):
            if tenant is not None:
                times, who = expected.get(key, [0, 0])
                expected[key] = [times + 1, who | tenant]
        if restores and number % 2:
            counter.restore(counter.drain())
    found = {
        key: [times, who]
        for each in counter.drain()
        for key, times, who in zip(each.keys.tolist(), each.counts.tolist(), each.tenants.tolist(), strict=True)
    }
    assert found == expected
