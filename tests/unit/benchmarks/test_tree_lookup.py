"""The lookup part of `benchmarks.tree`: every store is asked for the same and gives the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.tree.stores import DictStore, LmdbStore, Store, TreeStore
from benchmarks.tree.text import VOCABULARY, Text, distinct_windows, make_text, mix
from benchmarks.tree.trees import bytes_on_disk, open_tree, resident, write_hollow, write_tables
from hmi.knowledge import unigrams
from hmi.spec import RowDtype

ENTRIES = VOCABULARY + 3_000


@pytest.fixture(scope="module")
def asked() -> Text:
    _, known = distinct_windows(ENTRIES)
    return mix(known, make_text(2_000, seed=1), 3_000, 0.3, seed=2)


def test_a_tree_holds_the_windows_of_its_text_and_all_unigrams() -> None:
    keys, known = distinct_windows(ENTRIES)
    assert len(keys) == ENTRIES
    assert np.isin(known.keys, keys).all()
    assert np.isin(unigrams(VOCABULARY), keys).all()


def test_batches_are_the_text_cut_between_sequences(asked: Text) -> None:
    batches = asked.batches(500)
    assert len(batches) > 3
    np.testing.assert_array_equal(np.concatenate([batch.ids for batch in batches]), asked.ids)
    np.testing.assert_array_equal(np.concatenate([batch.lengths for batch in batches]), asked.lengths)


def test_stores_of_the_same_rows_give_the_same_values(tmp_path: Path, asked: Text) -> None:
    keys, _ = distinct_windows(ENTRIES)
    write_tables(tmp_path / "tree", keys, 3, RowDtype.INT8)
    tree = open_tree(tmp_path / "tree", 3, RowDtype.INT8)
    assert tree.entries == ENTRIES
    assert tree.bytes < bytes_on_disk(tmp_path / "tree") < 1.02 * ENTRIES * (768 + 4 + 8)
    expected = torch.from_numpy(tree.lookup("domain-0", asked.keys).rows)
    lmdb = LmdbStore(tmp_path / "lmdb", tree, 4_000)
    stores: list[Store] = [TreeStore(tree, 4_000), TreeStore(resident(tree), 4_000), lmdb, DictStore(tree, 4_000)]
    for store in stores:
        torch.testing.assert_close(store.rows(asked), expected, rtol=0, atol=0)
    lmdb.close()


def test_tables_without_content_open(tmp_path: Path) -> None:
    write_hollow(tmp_path, 1_000_000, 3)
    assert open_tree(tmp_path, 3, RowDtype.INT8).entries == 1_000_000
