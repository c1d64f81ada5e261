"""Lookup of windows through a domain's line of ancestors, in one version of a knowledge tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt, NotFound
from hmi.knowledge import ngrams
from hmi.knowledge.domains import Parents, ancestor_chains
from hmi.knowledge.lookup.ancestors import AncestorChain
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store import NO_ROW, RowRefs, StoredRows, Table
from hmi.spec import RowDtype

__all__ = ["Gathered", "KnowledgeTree", "Lookup"]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a tree has for `n` windows.

    Attributes:
        rows: float32 `[n, hidden]`; zero where `hit` is False.
        hit: bool `[n]`, a row was found.
        exact: bool `[n]`, it is the window's own row, not that of a shorter n-gram. This is what
            counts as a hit in frequencies: a back-off is a window that the tree should have held.
        inherited: bool `[n]`, the row is an ancestor's and not of the domain's own table.
    """

    rows: NDArray[np.float32]
    hit: NDArray[np.bool_]
    exact: NDArray[np.bool_]
    inherited: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a tree has for `n` windows, its rows being in a `StoredRows`.

    Attributes:
        positions: int64 `[n]`, of each window's row there; `NO_ROW` where `hit` is False.
        hit, exact, inherited: As in `Lookup`.
    """

    positions: NDArray[np.int64]
    hit: NDArray[np.bool_]
    exact: NDArray[np.bool_]
    inherited: NDArray[np.bool_]


class KnowledgeTree:
    """One immutable version: who asks keeps a reference and is not touched by the next version.

    Safe for lookups from many threads at once.

    Attributes:
        number: The version's number; 0 is the empty tree.
        tables: By domain; a domain with no n-grams of its own may have none.
    """

    def __init__(
        self,
        number: int,
        parents: Parents,
        tables: Mapping[str, Table],
        row_dtype: RowDtype,
        hidden_size: int,
        functions: Mapping[str, str] | None = None,
    ) -> None:
        """Raises `Corrupt` where parents are no tree, or a table does not belong here.

        Args:
            functions: Digest of every domain's function; None: all domains have that of the tables.
        """
        self.number = number
        self.parents = dict(parents)
        self.tables = dict(tables)
        self.row_dtype = row_dtype
        self.hidden_size = hidden_size
        lines = ancestor_chains(parents)
        self._functions = self._functions_of(functions)
        self._check_tables()
        self._lines = {domain: AncestorChain(line, self.tables, self._functions) for domain, line in lines.items()}

    def _functions_of(self, functions: Mapping[str, str] | None) -> dict[str, str | None]:
        if functions is None:
            only = next((table.meta.function for table in self.tables.values()), None)
            return dict.fromkeys(self.parents, only)
        for domain in self.parents:
            if domain not in functions:
                raise Corrupt(f"tree {self.number} names no function for domain {domain}")
        return {domain: functions[domain] for domain in self.parents}

    def _check_tables(self) -> None:
        for domain, table in self.tables.items():
            meta = table.meta
            if domain not in self.parents:
                raise Corrupt(f"tree {self.number} has a table for domain {domain}, which does not exist")
            if meta.domain != domain:
                raise Corrupt(f"tree {self.number}: the table of {domain} was built for {meta.domain}")
            if (meta.row_dtype, meta.hidden_size) != (self.row_dtype, self.hidden_size):
                found, wanted = f"{meta.row_dtype} x {meta.hidden_size}", f"{self.row_dtype} x {self.hidden_size}"
                raise Corrupt(f"tree {self.number}: the table of {domain} holds rows of {found} instead of {wanted}")
            if meta.function != self._functions[domain]:
                computed = f"the table of {domain} was computed by function {meta.function}"
                raise Corrupt(f"tree {self.number}: {computed} instead of {self._functions[domain]}")

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

    def chain(self, domain: str) -> tuple[str, ...]:
        """The domain, its parent, ..., the root. Raises `NotFound`."""
        return self._line(domain).domains

    def function_of(self, domain: str) -> str | None:
        """Digest of what computes the domain's rows; None for a domain that is not here, or where no table tells."""
        return self._functions.get(domain)

    def _line(self, domain: str) -> AncestorChain:
        try:
            return self._lines[domain]
        except KeyError:
            raise NotFound(f"tree {self.number} has no domain {domain}") from None

    def lookup(self, domain: str, keys: Keys) -> Lookup:
        """Rows of windows, from the nearest domain on the line that holds each.

        A row of another function than the domain's is taken only where an alias says so, see `line`.

        Raises `NotFound` for an unknown domain.
        """
        rows = StoredRows(self.row_dtype, self.hidden_size, len(keys))
        return _decoded(rows, self.gather(domain, keys, rows))

    def backoff(self, domain: str, keys: Keys) -> Lookup:
        """As `lookup`, and a window that is not held gets the row of a shorter n-gram.

        The window's own row of another function comes before the bigrams, they before the unigram, and for each the
        nearest domain first. Where the other function is far from the domain's own (`foreign_is_far`), shorter n-grams
        of its own come before whatever others have. `hit` is False only where not even the unigram is held.
        """
        rows = StoredRows(self.row_dtype, self.hidden_size, len(keys))
        return _decoded(rows, self.gather(domain, keys, rows, backoff=True))

    def gather(self, domain: str, keys: Keys, rows: StoredRows, *, backoff: bool = False) -> Gathered:
        """What `lookup` or, with `backoff`, `backoff` finds, brought together in `rows` and not decoded yet.

        At most as many rows are added as there are keys. Raises `NotFound` for an unknown domain.
        """
        line = self._line(domain)
        # Sorted queries find their neighbours' path through the keys still in the cache, and text repeats itself.
        unique, inverse = np.unique(keys, return_inverse=True)
        places = line.find(unique)
        exact = places.table >= 0
        if backoff:
            _back_off(line, unique, places)
        positions = np.full(len(unique), NO_ROW, np.int64)
        for number, table in enumerate(line.tables):
            here = np.flatnonzero(places.table == number)
            if len(here):
                positions[here] = rows.add(table, places.row[here])
        inherited = places.table >= (1 if line.has_own else 0)
        at = positions[inverse]
        return Gathered(at, at != NO_ROW, exact[inverse], inherited[inverse])

    def find(self, domain: str, keys: Keys) -> RowRefs:
        """Where a lookup finds keys `[n]`; tables are counted along the domain's line. Raises `NotFound`."""
        return self._line(domain).find(keys)

    def foreign_is_far(self, domain: str) -> bool:
        """See `AncestorChain.foreign_is_far`. Raises `NotFound`."""
        return self._line(domain).foreign_is_far

    def holder_positions(self, domain: str, keys: Keys) -> NDArray[np.int16]:
        """For each key the position in `chain(domain)` of the domain whose row a lookup gets, -1 for a miss; `[n]`."""
        line = self._line(domain)
        unique, inverse = np.unique(keys, return_inverse=True)
        table = line.find(unique).table[inverse]
        return np.where(table >= 0, line.positions[table], np.int16(-1)) if len(line.positions) else table


def _back_off(line: AncestorChain, keys: Keys, places: RowRefs) -> None:
    """Fill in places of keys that have none with those of the nearest thing there is."""
    missing = np.flatnonzero(places.table < 0)
    steps = [(shorten, line.find_anywhere) for shorten in ngrams.BACKOFF]
    if line.crosses:
        steps.insert(0, (_as_it_is, line.find_anywhere))
        if len(missing) and line.foreign_is_far:
            steps[:0] = [(shorten, line.find) for shorten in ngrams.BACKOFF]
    for shorten, find in steps:
        if not len(missing):
            break
        unique, inverse = np.unique(shorten(keys[missing]), return_inverse=True)
        shorter = find(unique)
        places.table[missing] = shorter.table[inverse]
        places.row[missing] = shorter.row[inverse]
        missing = missing[places.table[missing] < 0]


def _as_it_is(keys: Keys) -> Keys:
    return keys


def _decoded(rows: StoredRows, found: Gathered) -> Lookup:
    return Lookup(rows.decode(found.positions), found.hit, found.exact, found.inherited)
