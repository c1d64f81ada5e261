"""A batch's rows, gathered from tables in their stored form and decoded later, in any order and dtype.

A stored row is a quarter or half of a float32 one. Copied in this form, each once, and decoded where its values are
used, rows cost the least memory traffic. A GPU decodes them itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.store.rows import CHUNK_ROWS, EncodedRows, decode_into
from hmi.knowledge.store.table import Table
from hmi.spec import RowDtype

NO_ROW = 0  # position of a row of zeros, for windows that have none


class StoredRows:
    """Grows by `add` up to its capacity. Not thread-safe."""

    def __init__(self, row_dtype: RowDtype, hidden_size: int, capacity: int) -> None:
        self.row_dtype = row_dtype
        self._encoded = EncodedRows.empty(capacity + 1, row_dtype, hidden_size)
        self.codes: NDArray[Any] = self._encoded.rows  # [capacity + 1, hidden]; the first `count` are rows
        self.scales = self._encoded.scales
        self.clear()

    def clear(self) -> None:
        """Remove all rows; the memory is reused."""
        self.codes[NO_ROW] = 0
        if self.scales is not None:
            self.scales[NO_ROW] = 0
        self.count = 1  # the row of zeros

    def add(self, table: Table, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Copy a table's rows at `index` `[n]`; return the position of each."""
        first, stop = self._reserve(len(index))
        # `clip` for speed alone: with `raise`, numpy gathers into a buffer of its own first.
        np.take(table.rows, index, axis=0, out=self.codes[first:stop], mode="clip")
        if self.scales is not None and table.scales is not None:
            np.take(table.scales, index, out=self.scales[first:stop], mode="clip")
        return np.arange(first, stop)

    def add_encoded(self, encoded: EncodedRows) -> NDArray[np.int64]:
        """Copy rows that come from elsewhere; return the position of each."""
        first, stop = self._reserve(len(encoded))
        self._encoded.put(slice(first, stop), encoded)
        return np.arange(first, stop)

    def decode(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows at `positions` `[n]` as float32 `[n, hidden]`."""
        rows = np.empty((len(positions), self.codes.shape[1]), np.float32)
        # A chunk's codes are decoded while they are still in the core's cache.
        codes = np.empty((min(CHUNK_ROWS, len(positions)), self.codes.shape[1]), self.codes.dtype)
        for start in range(0, len(positions), CHUNK_ROWS):
            part = positions[start : start + CHUNK_ROWS]
            chunk = np.take(self.codes, part, axis=0, out=codes[: len(part)], mode="clip")
            decode_into(chunk, None if self.scales is None else self.scales[part], rows[start : start + len(part)])
        return rows

    def _reserve(self, rows: int) -> tuple[int, int]:
        first, stop = self.count, self.count + rows
        if stop > len(self.codes):
            raise ValueError(f"{stop - 1} rows exceed the capacity of {len(self.codes) - 1}")
        self.count = stop
        return first, stop
