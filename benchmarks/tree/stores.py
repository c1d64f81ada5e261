"""Other ways to keep rows by n-gram, on the same keys and rows: LMDB and Python dicts.

Each has a tree's interface: token ids and lengths in, a row for every token out, in float32. They get a tree's packed
keys, each once and ascending, walk the same chain of domains, and decode with the same code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.tree.text import Text
from benchmarks.tree.trees import DOMAIN, HIDDEN
from hmi.engine import decode_rows
from hmi.knowledge import Keys
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import NO_ROW, EncodedRows, StoredRows, Table
from hmi.spec import RowDtype


class Store(Protocol):
    def rows(self, text: Text) -> Tensor:
        """Return `[tokens, hidden]`, valid until the next call; zero where nothing is held."""
        ...


class Workspace:
    """Memory that is used for every batch: stored rows of unique windows, and values of all tokens."""

    def __init__(self, row_dtype: RowDtype, tokens: int, dtype: torch.dtype = torch.float32) -> None:
        self.stored = StoredRows(row_dtype, HIDDEN, tokens)
        self._values = torch.empty(tokens, HIDDEN, dtype=dtype)

    def decode(self, positions: NDArray[np.int64]) -> Tensor:
        codes, scales = torch.from_numpy(self.stored.codes), self.stored.scales
        known_scales = None if scales is None else torch.from_numpy(scales)
        return decode_rows(codes, known_scales, torch.from_numpy(positions), self._values.dtype, self._values)


class TreeStore:
    """The knowledge tree, called as the engine calls it. `tokens`, here and below, is the most that a batch has."""

    def __init__(self, tree: KnowledgeTree, tokens: int, dtype: torch.dtype = torch.float32) -> None:
        self._tree = tree
        self._workspace = Workspace(tree.row_dtype, tokens, dtype)

    def rows(self, text: Text) -> Tensor:
        self._workspace.stored.clear()
        return self._workspace.decode(self._tree.gather(DOMAIN, text.keys, self._workspace.stored).positions)


class LmdbStore:
    """One database for each domain of the chain: int8 rows with their scales behind them.

    Keys are looked up in one call for each database, in the order that the pages have.
    """

    def __init__(self, folder: Path, tree: KnowledgeTree, tokens: int) -> None:
        self._folder = folder
        self._workspace = Workspace(RowDtype.INT8, tokens)
        tables = [tree.tables[domain] for domain in tree.chain(DOMAIN)]
        with _open(folder, len(tables), readonly=False, size=4 * tree.bytes + 2**26) as env:
            for number, table in enumerate(tables):
                database = env.open_db(f"{number}".encode())
                with env.begin(write=True, db=database) as txn, txn.cursor() as cursor:
                    cursor.putmulti(_items(table), append=True)
            env.sync(True)
        self._env = _open(folder, len(tables), readonly=True)
        self._databases = [self._env.open_db(f"{number}".encode(), create=False) for number in range(len(tables))]

    def rows(self, text: Text) -> Tensor:
        unique, inverse = np.unique(text.keys, return_inverse=True)
        rows = self._workspace.stored
        rows.clear()
        positions = np.full(len(unique), NO_ROW, np.int64)
        missing = np.arange(len(unique))
        with self._env.begin(buffers=True) as txn:
            for database in self._databases:
                with txn.cursor(database) as cursor:
                    found = cursor.getmulti(_as_bytes(unique[missing]))
                if not found:
                    continue
                keys = np.frombuffer(b"".join(key for key, _ in found), ">u8").astype(np.uint64)
                values = np.frombuffer(b"".join(value for _, value in found), np.uint8).reshape(len(found), -1)
                scales = np.ascontiguousarray(values[:, HIDDEN:]).view(np.float32)[:, 0]
                encoded = EncodedRows(values[:, :HIDDEN].view(np.int8), scales)
                positions[np.searchsorted(unique, keys)] = rows.add_encoded(encoded)
                missing = missing[positions[missing] == NO_ROW]
        return self._workspace.decode(positions[inverse])

    @property
    def bytes(self) -> int:
        return (self._folder / "data.mdb").stat().st_size

    def close(self) -> None:
        self._env.close()


def _open(folder: Path, databases: int, *, readonly: bool, size: int = 0) -> Any:
    import lmdb  # noqa: PLC0415 - the others can be measured without it

    return lmdb.open(
        str(folder), map_size=size, max_dbs=databases, readonly=readonly, lock=False, readahead=False, sync=False
    )


def _items(table: Table) -> Iterator[tuple[bytes, bytes]]:
    keys = _as_bytes(table.keys)
    for at, key in enumerate(keys):
        yield key, table.rows[at].tobytes() + table.scales[at].tobytes()  # type: ignore[index]


def _as_bytes(keys: Keys) -> list[bytes]:
    """Big-endian, so that the order of bytes is that of keys."""
    joined = keys.astype(">u8").tobytes()
    return [joined[start : start + 8] for start in range(0, len(joined), 8)]


class DictStore:
    """A dict for each domain, from key to the place of the row in an array; all in memory."""

    def __init__(self, tree: KnowledgeTree, tokens: int) -> None:
        self._workspace = Workspace(RowDtype.INT8, tokens)
        self._tables = [tree.tables[domain] for domain in tree.chain(DOMAIN)]
        self._places = [dict(zip(table.keys.tolist(), range(len(table.keys)), strict=True)) for table in self._tables]

    def rows(self, text: Text) -> Tensor:
        unique, inverse = np.unique(text.keys, return_inverse=True)
        rows = self._workspace.stored
        rows.clear()
        positions = np.full(len(unique), NO_ROW, np.int64)
        missing = np.arange(len(unique))
        for table, places in zip(self._tables, self._places, strict=True):
            get = places.get
            index = np.array([get(key, -1) for key in unique[missing].tolist()], np.int64)
            held = np.flatnonzero(index >= 0)
            positions[missing[held]] = rows.add(table, index[held])
            missing = missing[index < 0]
        return self._workspace.decode(positions[inverse])
