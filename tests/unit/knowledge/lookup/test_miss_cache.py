from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge import Keys
from hmi.knowledge.lookup import MissCache
from hmi.knowledge.store import NO_ROW, StoredRows, round_trip
from hmi.spec import RowDtype
from tests.unit.knowledge.tables import HIDDEN, rows_of

PLENTY = 1 << 20

STEPS = st.lists(
    st.tuples(st.booleans(), st.sampled_from("fg"), st.lists(st.integers(0, 40), max_size=20)), max_size=25
)


def keys_of(numbers: list[int] | range) -> Keys:
    return np.array(list(numbers), np.uint64)


def stored(function: str, keys: Keys, dtype: RowDtype = RowDtype.INT8) -> NDArray[np.float32]:
    """A row's value tells its key and its function."""
    return round_trip(rows_of(keys) * (2 if function == "g" else 1), dtype)


def find(
    miss_cache: MissCache, function: str, keys: Keys, scope: str = ""
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Which are held, and the rows of those."""
    rows = StoredRows(miss_cache.row_dtype, miss_cache.hidden_size, len(keys))
    positions = miss_cache.gather(function, scope, keys, rows)
    found = positions != NO_ROW
    return found, rows.decode(positions[found])


def add(miss_cache: MissCache, function: str, numbers: list[int] | range) -> None:
    miss_cache.add(function, "", keys_of(numbers), stored(function, keys_of(numbers), miss_cache.row_dtype))


def test_a_row_serves_its_scope_alone_and_any_rebuild() -> None:
    miss_cache, keys = MissCache(PLENTY, RowDtype.INT8, HIDDEN), keys_of(range(5))
    for scope, some in (("", keys[:2]), ("private", keys[1:4])):
        miss_cache.add("f", scope, some, stored("f", some))
    assert find(miss_cache, "f", keys)[0].tolist() == [True, True, False, False, False]
    assert find(miss_cache, "f", keys, "private")[0].tolist() == [False, True, True, True, False]
    assert not find(miss_cache, "f", keys, "another")[0].any()
    held, rows = miss_cache.read("f", keys)
    assert held.tolist() == [True, True, True, True, False]
    np.testing.assert_array_equal(rows, stored("f", keys[:4]))


@given(dtype=st.sampled_from(RowDtype), budget=st.sampled_from([0, 900, 2000, PLENTY]), steps=STEPS)
def test_a_row_that_is_found_is_the_one_that_was_added(
    dtype: RowDtype, budget: int, steps: list[tuple[bool, str, list[int]]]
) -> None:
    miss_cache, added = MissCache(budget, dtype, HIDDEN), set[tuple[str, int]]()
    lookups = hits = 0
    for adds, function, numbers in steps:
        if adds:
            add(miss_cache, function, sorted(set(numbers)))
            added |= {(function, number) for number in numbers}
            continue
        keys = keys_of(numbers)
        found, rows = find(miss_cache, function, keys)
        np.testing.assert_array_equal(rows, stored(function, keys, dtype)[found])
        known = [(function, number) in added for number in numbers]
        if budget == PLENTY:
            assert found.tolist() == known
        assert not (found & ~np.array(known, bool)).any()
        lookups, hits = lookups + len(keys), hits + int(found.sum())
    stats = miss_cache.stats()
    assert (stats.lookups, stats.hits) == (lookups, hits)
    assert stats.bytes <= stats.budget_bytes == budget
    entries = 0
    for function in "fg":
        keys = keys_of(sorted(number for each, number in added if each == function))
        found, rows = miss_cache.read(function, keys)
        entries += int(found.sum())
        np.testing.assert_array_equal(rows, stored(function, keys[found], dtype))
    assert stats.entries == entries
    assert miss_cache.stats().lookups == lookups  # a rebuild's reading is no use


@pytest.mark.parametrize("dtype", RowDtype)
def test_rows_keep_their_bits(dtype: RowDtype) -> None:
    random = np.random.default_rng(3)
    rows = round_trip((random.standard_normal((400, HIDDEN)) * 10.0 ** random.uniform(-20, 3, (400, 1))).astype(
        np.float32
    ), dtype)  # fmt: skip
    miss_cache, keys = MissCache(PLENTY, dtype, HIDDEN), keys_of(range(400))
    miss_cache.add("f", "", keys, rows)
    order = random.permutation(np.tile(keys, 3).astype(np.int64))
    found, back = find(miss_cache, "f", keys[order])
    assert found.all()
    assert back.tobytes() == rows[order].tobytes()


def test_read_returns_only_held_rows() -> None:
    miss_cache = MissCache(PLENTY, RowDtype.INT8, HIDDEN)
    add(miss_cache, "f", [1, 5])
    found, rows = miss_cache.read("f", keys_of([5, 2, 1]))
    assert found.tolist() == [True, False, True]
    np.testing.assert_array_equal(rows, stored("f", keys_of([5, 1])))
    assert not miss_cache.read("g", keys_of([5]))[0].any()


def test_arrays_stay_within_the_budget() -> None:
    miss_cache = MissCache(100_000, RowDtype.INT8, HIDDEN)
    add(miss_cache, "f", range(20_000))
    index = miss_cache._index
    arrays = [miss_cache._rows.rows, miss_cache._rows.scales]
    arrays += [index._keys, index._groups, index._used, index._gone, index._oldest_gone]
    assert 90_000 < sum(array.nbytes for array in arrays if array is not None) <= 100_000
    assert miss_cache.stats().entries > 0.99 * index.places


def test_a_row_that_is_not_finite_is_refused() -> None:
    miss_cache = MissCache(PLENTY, RowDtype.INT8, HIDDEN)
    with pytest.raises(Corrupt):
        miss_cache.add("f", "", keys_of([1]), np.full((1, HIDDEN), np.nan, np.float32))
    assert miss_cache.stats().entries == 0


@pytest.fixture
def threads_switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("threads_switch_often")
def test_rows_are_not_mixed_up_when_threads_add_and_find_at_once() -> None:
    miss_cache = MissCache(6_000, RowDtype.INT8, HIDDEN)  # about a hundred rows: they push each other out
    start = threading.Barrier(5)

    def keep_adding(seed: int) -> None:
        random, function = np.random.default_rng(seed), "fg"[seed % 2]
        start.wait(timeout=30)
        for _ in range(150):
            add(miss_cache, function, sorted(set(random.integers(0, 600, 50).tolist())))

    def keep_finding(seed: int) -> int:
        random, hits = np.random.default_rng(seed), 0
        start.wait(timeout=30)
        for turn in range(150):
            function = "fg"[turn % 2]
            keys = random.integers(0, 600, 80).astype(np.uint64)
            found, rows = find(miss_cache, function, keys) if turn % 3 else miss_cache.read(function, keys)
            np.testing.assert_array_equal(rows, stored(function, keys)[found])
            hits += int(found.sum())
        return hits

    with ThreadPoolExecutor(5) as pool:
        adders = [pool.submit(keep_adding, seed) for seed in range(2)]
        finders = [pool.submit(keep_finding, seed) for seed in range(2, 5)]
        for future in adders:
            future.result()
        assert sum(future.result() for future in finders) > 0
    assert miss_cache.stats().evictions > 0
