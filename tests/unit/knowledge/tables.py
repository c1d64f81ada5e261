"""Small tables with rows that are a pure function of the key, as the lower layers' are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge import NO_KEYS, Keys
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table, TableMeta, encode, write_table
from hmi.spec import RowDtype

HIDDEN = 8
FUNCTION = "f" * 64
PARENTS = {"general": None, "reviews": "general", "movies": "reviews", "products": "reviews", "news": "general"}


def as_keys(keys: Iterable[int]) -> Keys:
    return np.array(sorted(set(keys)), np.uint64)


def rows_of(keys: Keys, function: str = FUNCTION) -> NDArray[np.float32]:
    """What a model would compute: each row depends on its key and the function alone."""
    angle = keys.astype(np.float64)[:, None] * 0.37 + np.arange(HIDDEN) + len(function) + ord(function[0])
    return np.sin(angle).astype(np.float32)


def row_index(table: Table, keys: Keys) -> NDArray[np.int64]:
    """Row index of each key in the table, -1 where it is not held."""
    index, found = table.find(keys)
    return np.where(found, index, -1)


def make_table(
    folder: Path,
    domain: str,
    keys: Keys,
    dtype: RowDtype = RowDtype.INT8,
    *,
    function: str = FUNCTION,
    aliases: Keys = NO_KEYS,
    alias_function: str | None = None,
) -> Table:
    meta = TableMeta(domain, function, dtype, HIDDEN, len(keys), len(aliases), alias_function)
    write_table(folder / domain, meta, keys, encode(rows_of(keys, function), dtype), aliases)
    return Table.open(folder / domain)


def make_tree(folder: Path, held: dict[str, Keys], dtype: RowDtype = RowDtype.INT8, number: int = 1) -> KnowledgeTree:
    tables = {domain: make_table(folder, domain, keys, dtype) for domain, keys in held.items()}
    return KnowledgeTree(number, PARENTS, tables, dtype, HIDDEN)
