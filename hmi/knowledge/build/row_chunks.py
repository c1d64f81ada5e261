"""Rows that a build has computed, on disk in small finished tables, which a killed build leaves for the next run.

A chunk holds one function's rows of ascending keys. Rows are computed into chunks first and copied into the domains'
tables from there. So whatever the next run plans, at most one chunk has to be computed again.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge.domains import Function
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store import EncodedRows, RowRefs, RowSource, Table, TableMeta, encode, write_table
from hmi.spec import RowDtype

ComputeRows = Callable[[Function, Keys], NDArray[np.float32]]
"""A function and windows' keys `[n]` to that function's rows, float32 `[n, hidden]`."""

ROWS_PER_CHUNK = 65_536  # most rows of a chunk, which a killed build loses
_DOMAIN = "chunk"  # in a chunk's manifest; it belongs to no domain yet


class RowChunk:
    """A finished chunk. Its files are open only while rows are read: there may be hundreds of chunks."""

    def __init__(self, folder: Path, table: Table) -> None:
        self._folder = folder
        self.keys: Keys = np.array(table.keys)

    def encoded(self, index: NDArray[np.int64]) -> EncodedRows:
        return Table.open(self._folder).encoded(index)


class RowChunks:
    """All chunks of one build folder, by function."""

    def __init__(
        self,
        folder: Path,
        functions: Mapping[str, Function],
        row_dtype: RowDtype,
        hidden_size: int,
        compute: ComputeRows,
        most_keys: int,
    ) -> None:
        """Take over the folder's finished chunks of `functions` (by digest) and remove everything else in it.

        `compute` is called with at most `most_keys` keys.
        """
        self.row_dtype = row_dtype
        self.hidden_size = hidden_size
        self._folder = folder
        self._functions = functions
        self._compute_rows = compute
        self._most_keys = most_keys
        self._of: defaultdict[str, list[RowChunk]] = defaultdict(list)
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            try:
                table = Table.open(path)
                meta = table.meta
                table.verify()
            except (Corrupt, NotADirectoryError):
                _remove(path)
                continue
            if meta.function in functions and (meta.row_dtype, meta.hidden_size) == (row_dtype, hidden_size):
                self._of[meta.function].append(RowChunk(path, table))
            else:
                _remove(path)

    def of(self, function: str) -> list[RowChunk]:
        return self._of[function]

    def compute(self, function: str, keys: Keys, progress: Callable[[int], None]) -> None:
        """Compute the rows of ascending keys, which no chunk of this function holds, into new chunks.

        `progress` is called with the number of rows done, after each call of `compute`; its exceptions end the build.
        Raises `Corrupt` for a row that cannot be stored, `StorageFull`.
        """
        for start in range(0, len(keys), ROWS_PER_CHUNK):
            part = keys[start : start + ROWS_PER_CHUNK]
            # No other chunk of this function begins with this key, as none holds it.
            folder = self._folder / f"{function[:16]}-{int(part[0]):016x}"
            meta = TableMeta(_DOMAIN, function, self.row_dtype, self.hidden_size, len(part))
            write_table(folder, meta, part, self._blocks(self._functions[function], part, progress, start))
            self._of[function].append(RowChunk(folder, Table.open(folder)))

    def _blocks(
        self, function: Function, keys: Keys, progress: Callable[[int], None], before: int
    ) -> Iterator[EncodedRows]:
        for start in range(0, len(keys), self._most_keys):
            part = keys[start : start + self._most_keys]
            rows = self._compute_rows(function, part)
            if rows.shape != (len(part), self.hidden_size):
                raise ValueError(f"{len(part)} keys gave rows of shape {rows.shape}")
            yield encode(rows, self.row_dtype)
            progress(before + start + len(part))


def find_rows(sources: Sequence[RowSource], keys: Keys) -> RowRefs:
    """Find the first source that holds each key; keys ascend.

    Each source is searched only for keys between its first and its last one, so hundreds of chunks with a range of
    their own cost no more than one table.
    """
    refs = RowRefs(np.full(len(keys), -1, np.int16), np.zeros(len(keys), np.int64))
    for position, source in enumerate(sources):
        held = source.keys
        if not len(held):
            continue
        low = int(np.searchsorted(keys, held[0]))
        high = int(np.searchsorted(keys, held[-1], side="right"))
        missing = low + np.flatnonzero(refs.table[low:high] < 0)
        index = np.searchsorted(held, keys[missing])
        found = np.take(held, index, mode="clip") == keys[missing]
        refs.table[missing[found]] = position
        refs.row[missing[found]] = index[found]
    return refs


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
