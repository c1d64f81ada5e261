"""Lookup of windows through a domain's line of ancestors, in one version of a knowledge tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt, NotFound
from hmi.knowledge import ngrams
from hmi.knowledge.hierarchy import Parents, lines_of
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.rows import CHUNK_ROWS, code_dtype, decode_into
from hmi.knowledge.table import Places, Table, find_first
from hmi.spec import RowDtype

__all__ = ["KnowledgeTree", "Lookup"]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a tree has for `n` windows.

    Attributes:
        rows: float32 `[n, hidden]`; finite but meaningless where `hit` is False.
        hit: bool `[n]`, a row was found.
        exact: bool `[n]`, it is the window's own row, not that of a shorter n-gram. This is what
            counts as a hit in frequencies: a back-off is a window that the tree should have held.
    """

    rows: NDArray[np.float32]
    hit: NDArray[np.bool_]
    exact: NDArray[np.bool_]


class KnowledgeTree:
    """One immutable version: who asks keeps a reference and is not touched by the next version.

    Safe for lookups from many threads at once.

    Attributes:
        number: The version's number; 0 is the empty tree.
        tables: By domain; a domain with no n-grams of its own may have none.
        function: Digest of what computed the rows; None while there are no tables.
    """

    def __init__(
        self,
        number: int,
        parents: Parents,
        tables: Mapping[str, Table],
        row_dtype: RowDtype,
        hidden_size: int,
    ) -> None:
        """Raises `Corrupt` where parents are no tree, or a table does not belong here."""
        self.number = number
        self.parents = dict(parents)
        self.tables = dict(tables)
        self.row_dtype = row_dtype
        self.hidden_size = hidden_size
        self._lines = lines_of(parents)
        self._check_tables()
        functions = {table.meta.function for table in self.tables.values()}
        self.function = next(iter(functions), None)
        self._searched = {
            domain: [self.tables[each] for each in line if each in self.tables] for domain, line in self._lines.items()
        }
        self._positions = {
            domain: np.array([i for i, each in enumerate(line) if each in self.tables], np.int16)
            for domain, line in self._lines.items()
        }

    def _check_tables(self) -> None:
        first: Table | None = None
        for domain, table in self.tables.items():
            meta = table.meta
            if domain not in self._lines:
                raise Corrupt(f"tree {self.number} has a table for domain {domain}, which does not exist")
            if meta.domain != domain:
                raise Corrupt(f"tree {self.number}: the table of {domain} was built for {meta.domain}")
            if (meta.row_dtype, meta.hidden_size) != (self.row_dtype, self.hidden_size):
                found, wanted = f"{meta.row_dtype} x {meta.hidden_size}", f"{self.row_dtype} x {self.hidden_size}"
                raise Corrupt(f"tree {self.number}: the table of {domain} holds rows of {found} instead of {wanted}")
            first = first or table
            if meta.function != first.meta.function:
                raise Corrupt(f"tree {self.number}: the tables of {domain} and {first.meta.domain} differ in function")

    @property
    def entries(self) -> int:
        return sum(table.meta.entries for table in self.tables.values())

    @property
    def bytes(self) -> int:
        return sum(table.bytes for table in self.tables.values())

    def warm(self) -> None:
        """Touch all pages of all tables, best before the tree is put in the place of another."""
        for table in self.tables.values():
            table.warm()

    def line(self, domain: str) -> tuple[str, ...]:
        """The domain, its parent, ..., the root. Raises `NotFound`."""
        try:
            return self._lines[domain]
        except KeyError:
            raise NotFound(f"tree {self.number} has no domain {domain}") from None

    def lookup(self, domain: str, keys: Keys, *, out: NDArray[np.float32] | None = None) -> Lookup:
        """Rows of windows, from the nearest domain on the line that holds each.

        Args:
            out: float32 `[n or more, hidden]`, C-contiguous, to decode into. A buffer that is used
                again saves touching fresh pages for every batch; the result's `rows` is a view of it.

        Raises `NotFound` for an unknown domain.
        """
        places = self._locate(domain, keys)
        hit = places.table >= 0
        return Lookup(self._decode(domain, places, out), hit, hit)

    def backoff(self, domain: str, keys: Keys, *, out: NDArray[np.float32] | None = None) -> Lookup:
        """As `lookup`, and a window that is not held gets the row of a shorter n-gram.

        Bigrams come before the unigram and for each the nearest domain first. `hit` is False only
        where not even the unigram is held.
        """
        places = self._locate(domain, keys)
        exact = places.table >= 0
        missing = np.flatnonzero(~exact)
        for shorten in ngrams.BACKOFF:
            if not len(missing):
                break
            shorter = self._locate(domain, shorten(keys[missing]))
            places.table[missing] = shorter.table
            places.row[missing] = shorter.row
            missing = missing[shorter.table < 0]
        return Lookup(self._decode(domain, places, out), places.table >= 0, exact)

    def held_at(self, domain: str, keys: Keys) -> NDArray[np.int16]:
        """For each key the position in `line(domain)` of the domain that holds it, -1 where none does; `[n]`."""
        table = self._locate(domain, keys).table
        positions = self._positions[domain]
        return np.where(table >= 0, positions[table], np.int16(-1)) if len(positions) else table

    def _locate(self, domain: str, keys: Keys) -> Places:
        """Places in `_searched[domain]`."""
        self.line(domain)
        # Sorted queries find their neighbours' path through the keys still in the cache, and text repeats itself.
        unique, inverse = np.unique(keys, return_inverse=True)
        places = find_first(self._searched[domain], unique)
        return Places(places.table[inverse], places.row[inverse])

    def _decode(self, domain: str, places: Places, out: NDArray[np.float32] | None) -> NDArray[np.float32]:
        count = len(places.table)
        rows = np.empty((count, self.hidden_size), np.float32) if out is None else out[:count]
        if rows.shape != (count, self.hidden_size) or rows.dtype != np.float32 or not rows.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous float32 [{count} or more, {self.hidden_size}]")
        # What of one chunk is gathered here is decoded while it is still in the core's cache.
        codes = np.zeros((min(count, CHUNK_ROWS), self.hidden_size), code_dtype(self.row_dtype))
        gathered = np.empty_like(codes)
        scales = np.zeros(len(codes), np.float32) if self.row_dtype is RowDtype.INT8 else None
        for start in range(0, count, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, count)
            size = stop - start
            part = Places(places.table[start:stop], places.row[start:stop])
            self._gather(domain, part, codes[:size], scales, gathered)
            decode_into(codes[:size], None if scales is None else scales[:size], rows[start:stop])
        return rows

    def _gather(
        self,
        domain: str,
        places: Places,
        codes: NDArray[Any],
        scales: NDArray[np.float32] | None,
        gathered: NDArray[Any],
    ) -> None:
        """Stored rows of a chunk into `codes`, from as many tables as they lie in."""
        for position, table in enumerate(self._searched[domain]):
            here = np.flatnonzero(places.table == position)
            if not len(here):
                continue
            index = places.row[here]
            if len(here) == len(codes):
                # `clip` for speed alone: with `raise`, numpy gathers into a buffer of its own first.
                np.take(table.rows, index, axis=0, out=codes, mode="clip")
            else:
                some = gathered[: len(here)]
                codes[here] = np.take(table.rows, index, axis=0, out=some, mode="clip")
            if scales is not None and table.scales is not None:
                scales[here] = table.scales[index]
