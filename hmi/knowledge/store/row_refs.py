"""References to rows in several tables: which table holds each key, and at which index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store.rows import EncodedRows
from hmi.knowledge.store.table import Table
from hmi.spec import RowDtype


@dataclass(frozen=True, slots=True)
class RowRefs:
    table: NDArray[np.int16]  # [n], position of the table, -1 where no table holds the key
    row: NDArray[np.int64]  # [n], row index in that table, 0 where no table holds the key

    def __getitem__(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> RowRefs:
        return RowRefs(self.table[index], self.row[index])


class RowSource(Protocol):
    """Anything that holds stored rows of ascending keys."""

    @property
    def keys(self) -> Keys: ...

    def encoded(self, index: NDArray[np.int64]) -> EncodedRows:
        """Return copies of the stored rows at `index`."""


def find_first(tables: Sequence[Table], keys: Keys) -> RowRefs:
    """Find the first table that holds each key `[n]`; a key that was found is not searched in the next table."""
    refs = RowRefs(np.full(len(keys), -1, np.int16), np.zeros(len(keys), np.int64))
    missing: NDArray[np.intp] | None = None  # None: all of them
    for position, table in enumerate(tables):
        if not len(table.keys):
            continue
        index, held = table.find(keys)
        found = np.flatnonzero(held)
        at = found if missing is None else missing[found]
        refs.table[at] = position
        refs.row[at] = index[found]
        if position + 1 == len(tables) or len(found) == len(keys):
            break
        lost = np.flatnonzero(~held)
        missing = lost if missing is None else missing[lost]
        keys = keys[lost]
    return refs


def gather_rows(sources: Sequence[RowSource], refs: RowRefs, row_dtype: RowDtype, hidden_size: int) -> EncodedRows:
    """Return copies of the stored rows at `refs` `[n]`; every one is in a source."""
    rows = EncodedRows.empty(len(refs.table), row_dtype, hidden_size)
    for position in np.unique(refs.table).tolist():
        here = np.flatnonzero(refs.table == position)
        found: EncodedRows = sources[position].encoded(refs.row[here])
        if len(here) == len(rows):
            return found
        rows.put(here, found)
    return rows
