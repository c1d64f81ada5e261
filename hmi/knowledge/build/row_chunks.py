"""Rows that a build has computed, on disk in small finished tables: what a killed build leaves for the next run.

Each holds one function's rows of ascending keys. Rows are computed into pieces first and copied into the domains'
tables from there, so whatever the next run plans, at most one piece has to be computed again.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge.domains import Function
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store import EncodedRows, Table, TableMeta, encode, write_table_blocks
from hmi.spec import RowDtype

__all__ = ["PIECE_ROWS", "ComputeRows", "RowChunk", "RowChunks", "RowSource"]

ComputeRows = Callable[[Function, Keys], NDArray[np.float32]]
"""A function and windows' keys `[n]` to that function's rows, float32 `[n, hidden]`."""

PIECE_ROWS = 65_536
"""Most rows of a piece: what a killed build loses."""

_DOMAIN = "piece"  # of a piece's manifest; it belongs to no domain yet


class RowSource(Protocol):
    """Anything that rows can be copied from."""

    @property
    def keys(self) -> Keys:
        """Ascending."""

    def encoded(self, index: NDArray[np.int64]) -> EncodedRows:
        """Copies of the stored rows at `index`, as they are."""


class RowChunk:
    """A finished piece. Its files are open only while rows are read: there may be hundreds of pieces."""

    def __init__(self, folder: Path, table: Table) -> None:
        self._folder = folder
        self.keys: Keys = np.array(table.keys)

    def encoded(self, index: NDArray[np.int64]) -> EncodedRows:
        return Table.open(self._folder).encoded(index)


class RowChunks:
    """All pieces of one build folder.

    Args:
        functions: By digest. Finished pieces of these that lie in the folder are taken over, all else in it is removed.
    """

    def __init__(self, folder: Path, functions: Mapping[str, Function], row_dtype: RowDtype, hidden_size: int) -> None:
        self._folder = folder
        self._row_dtype = row_dtype
        self._hidden_size = hidden_size
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

    def of(self, function: Function) -> list[RowChunk]:
        return self._of[function.digest]

    def compute(
        self, function: Function, keys: Keys, compute: ComputeRows, chunk: int, progress: Callable[[int], None]
    ) -> None:
        """Compute rows into new pieces.

        Args:
            keys: Ascending, none of which a piece of this function holds.
            chunk: Most keys in one call of `compute`.
            progress: Called with the rows done, after each call of `compute`; what it raises ends the computing.

        Raises `Corrupt` for a row that cannot be stored, `StorageFull`.
        """
        for start in range(0, len(keys), PIECE_ROWS):
            part = keys[start : start + PIECE_ROWS]
            # No other piece of this function begins with this key, as none holds it.
            folder = self._folder / f"{function.digest[:16]}-{int(part[0]):016x}"
            meta = TableMeta(_DOMAIN, function.digest, self._row_dtype, self._hidden_size, len(part))
            write_table_blocks(folder, meta, part, self._blocks(function, part, compute, chunk, progress, start))
            self._of[function.digest].append(RowChunk(folder, Table.open(folder)))

    def _blocks(
        self,
        function: Function,
        keys: Keys,
        compute: ComputeRows,
        chunk: int,
        progress: Callable[[int], None],
        before: int,
    ) -> Iterator[EncodedRows]:
        for start in range(0, len(keys), chunk):
            part = keys[start : start + chunk]
            rows = compute(function, part)
            if rows.shape != (len(part), self._hidden_size):
                raise ValueError(f"{len(part)} keys gave rows of shape {rows.shape}")
            yield encode(rows, self._row_dtype)
            progress(before + start + len(part))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
