from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.knowledge import Keys, Parents, ancestor_chains
from hmi.knowledge.lookup import TreeContents, WeightedKeys, diff_trees
from hmi.knowledge.lookup import diff as difference
from hmi.knowledge.store import EncodedRows, Manifest, Table, TableMeta
from hmi.spec import RowDtype
from tests.unit.knowledge.tables import FUNCTION, HIDDEN, PARENTS, as_keys

FUNCTIONS = {"reviews": "d" * 64, "movies": "d" * 64, "products": "e" * 64}  # of others FUNCTION

Held = Mapping[str, tuple[set[int], set[int]]]  # rows and aliases by domain


def make_tables(held: Held) -> dict[str, Table]:
    """In memory: no row of them is ever read."""
    tables = {}
    for domain, (rows, aliases) in held.items():
        keys, alias_keys = as_keys(rows), as_keys(aliases - rows)
        meta = TableMeta(
            domain, FUNCTIONS.get(domain, FUNCTION), RowDtype.INT8, HIDDEN, len(keys), len(alias_keys), "a" * 64
        )
        no_rows = EncodedRows(np.empty((0, HIDDEN), np.int8), None)
        tables[domain] = Table(Path(domain), Manifest(meta, {}), keys, no_rows, alias_keys)
    return tables


keys = st.sets(st.integers(1, 12), max_size=8)
held = st.dictionaries(st.sampled_from(sorted(PARENTS)), st.tuples(keys, keys), max_size=5)
parents_of = st.sampled_from([PARENTS, {**PARENTS, "movies": "general"}, {**PARENTS, "reviews": "news"}])


def known(side: Held, domain: str) -> set[int]:
    rows, aliases = side.get(domain, (set(), set()))
    return rows | aliases


def elsewhere(side: Held, parents: Parents, domain: str) -> set[int]:
    chains, functions = ancestor_chains(parents), {**dict.fromkeys(PARENTS, FUNCTION), **FUNCTIONS}
    above = {each for each in chains[domain][1:] if functions[each] == functions[domain]}
    below = {each for each in chains if domain in chains[each][1:]}
    return set().union(*(known(side, each) for each in above | below))


@given(before=held, after=held, old=parents_of, new=parents_of)
def test_the_difference_is_that_of_plain_sets(before: Held, after: Held, old: Parents, new: Parents) -> None:
    earlier, later = TreeContents(make_tables(before), old), TreeContents(make_tables(after), new)
    for domain, found in diff_trees(earlier, later).items():
        came = known(after, domain) - known(before, domain)
        went = known(before, domain) - known(after, domain)
        assert set(found.added.tolist()) == came - elsewhere(before, old, domain)
        assert set(found.dropped.tolist()) == went - elsewhere(after, new, domain)
        assert found.moved_in == len(came & elsewhere(before, old, domain))
        assert found.moved_out == len(went & elsewhere(after, new, domain))
        assert (np.diff(found.added.astype(np.int64)) > 0).all()
        assert found.after.entries == len(after.get(domain, (set(), set()))[0])


def test_tables_are_compared_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "_BLOCK", 3)
    earlier = TreeContents(make_tables({"general": (set(range(1, 20)), set())}), PARENTS)
    later = TreeContents(make_tables({"general": (set(range(5, 30)), set())}), PARENTS)
    found = diff_trees(earlier, later)["general"]
    assert found.added.tolist() == list(range(20, 30))
    assert found.dropped.tolist() == [1, 2, 3, 4]


counted = st.lists(st.dictionaries(st.integers(0, 30), st.integers(0, 4), max_size=8), max_size=4)


@given(queries=st.sets(st.integers(0, 30), max_size=20), blocks=counted, limit=st.integers(0, 25))
def test_the_heaviest_keys_are_those_with_the_greatest_sums(
    queries: set[int], blocks: list[dict[int, int]], limit: int
) -> None:
    weighed = WeightedKeys(np.array(sorted(queries), np.uint64))
    sums: Counter[int] = Counter()
    for block in blocks:
        ordered = sorted(block)
        weighed.add(np.array(ordered, np.uint64), np.array([block[key] for key in ordered], np.float64))
        sums.update({key: count for key, count in block.items() if key in queries})
    counted = [key for key in queries if sums[key]]
    expected = sorted(counted, key=lambda key: (-sums[key], key))[:limit]
    found: Keys
    found, counts = weighed.heaviest(limit)
    assert found.tolist() == expected
    assert counts.tolist() == [sums[key] for key in expected]
