from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmi.errors import Corrupt, NotFound
from hmi.knowledge import Keys, ngrams
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import CHUNK_ROWS, round_trip
from hmi.spec import RowDtype
from tests.unit.knowledge.tables import FUNCTION, HIDDEN, PARENTS, as_keys, make_table, make_tree, rows_of

DTYPES = pytest.mark.parametrize("dtype", list(RowDtype))
SETS = st.sets(st.integers(0, 40))


@DTYPES
@settings(max_examples=30, deadline=None)
@given(
    held=st.dictionaries(st.sampled_from(sorted(PARENTS)), SETS),
    queries=st.lists(st.integers(0, 45), max_size=CHUNK_ROWS + 40),
    domain=st.sampled_from(sorted(PARENTS)),
)
def test_lookup_equals_dicts_along_the_ancestor_chain(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: RowDtype,
    held: dict[str, set[int]],
    queries: list[int],
    domain: str,
) -> None:
    tree = make_tree(tmp_path_factory.mktemp("tree"), {each: as_keys(keys) for each, keys in held.items()}, dtype)
    keys = np.array(queries, np.uint64)
    chain = tree.chain(domain)
    expected = [next((i for i, each in enumerate(chain) if key in held.get(each, ())), -1) for key in queries]
    found = tree.lookup(domain, keys)
    assert tree.holder_positions(domain, keys).tolist() == expected
    assert found.hit.tolist() == [at >= 0 for at in expected]
    np.testing.assert_array_equal(found.exact, found.hit)
    assert found.rows.shape == (len(queries), HIDDEN)
    np.testing.assert_array_equal(found.rows[found.hit], round_trip(rows_of(keys[found.hit]), dtype))
    assert np.isfinite(found.rows).all()


@DTYPES
def test_lookup_across_chunks_and_tables_keeps_the_order(tmp_path: Path, dtype: RowDtype) -> None:
    count = 5 * CHUNK_ROWS
    tree = make_tree(
        tmp_path,
        {
            "movies": as_keys(range(0, count, 3)),
            "reviews": as_keys(range(1, count, 3)),
            "general": as_keys(range(2, 300, 3)),
        },
        dtype,
    )
    keys = np.random.default_rng(1).integers(0, count, 3 * count).astype(np.uint64)
    found = tree.lookup("movies", keys)
    np.testing.assert_array_equal(found.hit, (keys % 3 != 2) | (keys < 300))
    np.testing.assert_array_equal(found.rows[found.hit], round_trip(rows_of(keys[found.hit]), dtype))


def test_the_nearest_domain_answers_when_several_hold_a_key(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"general": as_keys([1, 2]), "movies": as_keys([2, 3]), "news": as_keys([4])})
    assert tree.holder_positions("movies", as_keys([1, 2, 3, 4])).tolist() == [2, 0, 0, -1]
    assert tree.holder_positions("reviews", as_keys([1, 2, 3, 4])).tolist() == [1, 1, -1, -1]
    assert tree.entries == 5
    assert tree.bytes == sum(table.bytes for table in tree.tables.values())


def test_the_empty_tree_has_ancestor_chains_and_no_rows() -> None:
    tree = KnowledgeTree(0, PARENTS, {}, RowDtype.INT8, HIDDEN)
    keys = ngrams.unigrams(4)
    assert tree.chain("movies") == ("movies", "reviews", "general")
    for found in (tree.lookup("movies", keys), tree.lookup("movies", keys, backoff=True)):
        assert not found.hit.any()
        assert found.rows.shape == (4, HIDDEN)
    assert tree.holder_positions("movies", keys).tolist() == [-1] * 4
    assert (tree.function_of("movies"), tree.entries, tree.bytes) == (None, 0, 0)


def test_a_warm_tree_answers_as_a_cold_one(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"general": as_keys(range(5000)), "movies": as_keys([])})
    tree.warm()
    keys = as_keys(range(5000))
    np.testing.assert_array_equal(tree.lookup("movies", keys).rows, round_trip(rows_of(keys), RowDtype.INT8))


def test_no_keys_give_no_rows(tmp_path: Path) -> None:
    found = make_tree(tmp_path, {"general": as_keys([1])}).lookup("general", as_keys([]), backoff=True)
    assert found.rows.shape == (0, HIDDEN)


def test_an_unknown_domain_is_not_found(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"general": as_keys([1])})
    for look_up in (tree.lookup, tree.next_best, tree.holder_positions):
        with pytest.raises(NotFound, match="no domain sports"):
            look_up("sports", as_keys([1]))


# Back-off


def packed(*ids: tuple[int, int, int]) -> Keys:
    columns = np.array(ids, np.int64)
    return ngrams.pack(columns[:, 0], columns[:, 1], columns[:, 2])


@DTYPES
@pytest.mark.parametrize(
    ("held", "expected", "exact"),
    [
        ({"general": [(1, 2, 3), (1, 2, -1), (-1, 2, -1)]}, (1, 2, 3), True),
        ({"general": [(1, 2, -1), (-1, 2, 3), (-1, 2, -1)]}, (1, 2, -1), False),
        ({"general": [(-1, 2, 3), (-1, 2, -1)]}, (-1, 2, 3), False),
        ({"general": [(1, 2, -1), (-1, 2, -1)], "movies": [(-1, 2, -1)]}, (1, 2, -1), False),
        ({"general": [(-1, 2, -1)]}, (-1, 2, -1), False),
        ({"general": [(-1, 3, -1)]}, None, False),
    ],
)
def test_backoff_takes_the_longest_that_is_held(
    tmp_path: Path,
    dtype: RowDtype,
    held: dict[str, list[tuple[int, int, int]]],
    expected: tuple[int, int, int] | None,
    exact: bool,
) -> None:
    tree = make_tree(tmp_path, {domain: np.sort(packed(*ids)) for domain, ids in held.items()}, dtype)
    found = tree.lookup("movies", packed((1, 2, 3)), backoff=True)
    assert found.hit.tolist() == [expected is not None]
    assert found.exact.tolist() == [exact]
    if expected is not None:
        np.testing.assert_array_equal(found.rows, round_trip(rows_of(packed(expected)), dtype))


def test_backoff_does_not_change_held_windows(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    windows = packed(*[tuple(each) for each in random.integers(0, 12, (600, 3))])
    vocabulary = 12
    held = {"general": np.union1d(ngrams.unigrams(vocabulary), windows[:100]), "movies": np.unique(windows[100:250])}
    tree = make_tree(tmp_path, held)
    plain, backed = tree.lookup("movies", windows), tree.lookup("movies", windows, backoff=True)
    assert backed.hit.all()
    np.testing.assert_array_equal(backed.exact, plain.hit)
    np.testing.assert_array_equal(backed.rows[plain.hit], plain.rows[plain.hit])


# What does not belong together is refused


def test_a_tree_refuses_tables_that_do_not_belong_to_it(tmp_path: Path) -> None:
    movies = make_table(tmp_path, "movies", as_keys([1]))
    other = make_table(tmp_path / "other", "news", as_keys([1]), function="0" * 64)
    halves = make_table(tmp_path / "halves", "news", as_keys([1]), RowDtype.FLOAT16)
    for tables, reason in [
        ({"news": movies}, "the table of news was built for movies"),
        ({"sports": movies}, "domain sports, which does not exist"),
        ({"movies": movies, "news": other}, "the table of news was computed by function 0+ instead of f+"),
        ({"movies": movies, "news": halves}, f"float16 x {HIDDEN} instead of int8 x {HIDDEN}"),
    ]:
        with pytest.raises(Corrupt, match=reason):
            KnowledgeTree(1, PARENTS, tables, RowDtype.INT8, HIDDEN)
    assert KnowledgeTree(1, PARENTS, {"movies": movies}, RowDtype.INT8, HIDDEN).function_of("news") == FUNCTION


def test_many_threads_look_up_in_one_tree(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"movies": as_keys(range(0, 900, 2)), "general": as_keys(range(0, 900, 3))})
    start = threading.Barrier(4)

    def look_up(seed: int) -> bool:
        start.wait(timeout=30)
        random = np.random.default_rng(seed)
        for _ in range(30):
            keys = random.integers(0, 900, 400).astype(np.uint64)
            found = tree.lookup("movies", keys)
            if not np.array_equal(found.hit, (keys % 2 == 0) | (keys % 3 == 0)):
                return False
            if not np.array_equal(found.rows[found.hit], round_trip(rows_of(keys[found.hit]), RowDtype.INT8)):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(look_up, range(4)))
