from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hmi.errors import Corrupt
from hmi.knowledge import ancestor_chains
from hmi.knowledge.lookup import KeyLocation, KnowledgeTree, find_holders
from hmi.knowledge.store import KEY_FILES, Table, TableMeta, encode, write_table
from hmi.spec import RowDtype
from tests.unit.knowledge.tables import HIDDEN, PARENTS, as_keys, row_index, rows_of

BASE, DELTA = "b" * 64, "d" * 64
FUNCTIONS = {"general": BASE, "reviews": BASE, "movies": DELTA, "products": BASE, "news": BASE}


def make(folder: Path, domain: str, rows: set[int], aliases: set[int] = frozenset()) -> Path:  # type: ignore[assignment]
    keys, alias_keys = as_keys(rows), as_keys(aliases)
    function = FUNCTIONS[domain]
    meta = TableMeta(domain, function, RowDtype.INT8, HIDDEN, len(keys), len(alias_keys), BASE if aliases else None)
    write_table(folder / domain, meta, keys, encode(rows_of(keys), RowDtype.INT8), alias_keys)
    return folder / domain


def test_ngrams_are_held_where_lookups_find_them(tmp_path: Path) -> None:
    folders = [
        make(tmp_path, "general", {1, 2}),
        make(tmp_path, "reviews", {3}),
        make(tmp_path, "movies", {4}, {2, 5}),
    ]
    opened = {folder.name: Table.open(folder, keys_only=True) for folder in folders}
    tree = KnowledgeTree(
        1, PARENTS, {folder.name: Table.open(folder) for folder in folders}, RowDtype.INT8, HIDDEN, FUNCTIONS
    )
    keys = np.array([5, 4, 3, 2, 1, 9], np.uint64)
    for domain, line in ancestor_chains(PARENTS).items():
        found = find_holders(keys, line, opened, FUNCTIONS)
        at = tree.holder_positions(domain, keys)
        assert [each.domain for each in found] == [line[place] if place >= 0 else None for place in at]
    names = [each.location for each in find_holders(keys, ancestor_chains(PARENTS)["movies"], opened, FUNCTIONS)]
    assert names == [
        KeyLocation.MISSING,
        KeyLocation.OWN,
        KeyLocation.MISSING,
        KeyLocation.ALIAS,
        KeyLocation.MISSING,
        KeyLocation.MISSING,
    ]
    names = [each.location for each in find_holders(keys, ancestor_chains(PARENTS)["reviews"], opened, FUNCTIONS)]
    assert names == [
        KeyLocation.MISSING,
        KeyLocation.MISSING,
        KeyLocation.OWN,
        KeyLocation.INHERITED,
        KeyLocation.INHERITED,
        KeyLocation.MISSING,
    ]


def test_a_table_of_another_function_is_skipped(tmp_path: Path) -> None:
    opened = {"general": Table.open(make(tmp_path, "general", {1}), keys_only=True)}
    (found,) = find_holders(as_keys([1]), ("general",), opened, {"general": DELTA})
    assert found.location is KeyLocation.MISSING


def test_a_table_is_opened_without_its_rows(tmp_path: Path) -> None:
    folder = make(tmp_path, "movies", {1, 2}, {3})
    for path in folder.iterdir():
        if path.name not in KEY_FILES:
            path.unlink()
    table = Table.open(folder, keys_only=True)
    assert row_index(table, as_keys([1, 2, 3])).tolist() == [0, 1, -1]
    assert table.is_alias(as_keys([1, 2, 3])).tolist() == [False, False, True]
    assert table.bytes > 0
    (folder / "keys.npy").write_bytes(b"")
    with pytest.raises(Corrupt):
        Table.open(folder, keys_only=True)
