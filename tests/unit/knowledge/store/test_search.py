from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmi.knowledge.store import KeySearch
from tests.unit.knowledge.tables import as_keys


@settings(max_examples=60, deadline=None)
@given(
    count=st.sampled_from([40, 255, 256, 3000]),
    held=st.integers(0, 400),
    step=st.integers(1, 9),
    start=st.integers(0, 50),
    seed=st.integers(0, 2**32 - 1),
)
def test_find_equals_a_set(count: int, held: int, step: int, start: int, seed: int) -> None:
    keys = as_keys(range(start, start + held * step, step))
    queries = np.random.default_rng(seed).integers(0, start + held * step + 10, count).astype(np.uint64)
    index, found = KeySearch(keys).find(queries)
    np.testing.assert_array_equal(found, np.isin(queries, keys))
    np.testing.assert_array_equal(keys[index[found]], queries[found])


@pytest.mark.parametrize("count", [1, 63, 64, 65, 127, 128, 129, 1000])
def test_every_key_is_found_and_no_other(count: int) -> None:
    keys = as_keys(range(1, 2 * count, 2))
    search = KeySearch(keys)
    for queries in (keys, np.repeat(keys, 300)):
        index, found = search.find(queries)
        assert found.all()
        np.testing.assert_array_equal(keys[index], queries)
    for absent in (keys - np.uint64(1), np.full(300, 2 * count + 5, np.uint64), np.full(300, 2**63, np.uint64)):
        assert not search.find(absent)[1].any()


def test_nothing_is_found_without_keys_or_queries() -> None:
    none = as_keys([])
    assert not KeySearch(none).find(as_keys(range(1000)))[1].any()
    assert len(KeySearch(as_keys([1, 2])).find(none)[0]) == 0
