"""Stored rows of ascending keys, gathered from whatever holds them, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hmi.knowledge.build.row_chunks import RowSource
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store import EncodedRows, RowRefs, code_dtype
from hmi.spec import RowDtype

__all__ = ["BLOCK_ROWS", "find_rows", "gather", "row_blocks"]

BLOCK_ROWS = 16_384
"""Rows in memory at a time."""


def find_rows(sources: Sequence[RowSource], keys: Keys) -> RowRefs:
    """The first of the sources that holds each key.

    Args:
        keys: Ascending. Each source is searched for those between its first and its last key alone, so hundreds of
            pieces with a range of their own cost no more than one table.
    """
    table = np.full(len(keys), -1, np.int16)
    row = np.zeros(len(keys), np.int64)
    for position, source in enumerate(sources):
        held = source.keys
        if not len(held):
            continue
        low = int(np.searchsorted(keys, held[0]))
        high = int(np.searchsorted(keys, held[-1], side="right"))
        missing = low + np.flatnonzero(table[low:high] < 0)
        index = np.searchsorted(held, keys[missing])
        found = np.take(held, index, mode="clip") == keys[missing]
        table[missing[found]] = position
        row[missing[found]] = index[found]
    return RowRefs(table, row)


def row_blocks(
    sources: Sequence[RowSource], places: RowRefs, row_dtype: RowDtype, hidden_size: int
) -> Iterator[EncodedRows]:
    """The rows at `places`, every one of which is in a source, in this order."""
    for start in range(0, len(places.table), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        yield gather(sources, RowRefs(places.table[part], places.row[part]), row_dtype, hidden_size)


def gather(sources: Sequence[RowSource], places: RowRefs, row_dtype: RowDtype, hidden_size: int) -> EncodedRows:
    """As `row_blocks`, all at once."""
    codes = np.empty((len(places.table), hidden_size), code_dtype(row_dtype))
    scales = np.empty(len(codes), np.float32) if row_dtype is RowDtype.INT8 else None
    for position in np.unique(places.table).tolist():
        here = np.flatnonzero(places.table == position)
        found: EncodedRows = sources[position].encoded(places.row[here])
        if len(here) == len(codes):
            return found
        codes[here] = found.rows
        if scales is not None and found.scales is not None:
            scales[here] = found.scales
    return EncodedRows(codes, scales)
