"""One immutable version of a knowledge tree, and lookups in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt, NotFound
from hmi.knowledge.domains import Parents, ancestor_chains
from hmi.knowledge.lookup.ancestors import AncestorChain
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store import NO_ROW, StoredRows, Table, decode, gather_rows
from hmi.spec import RowDtype


@dataclass(frozen=True, slots=True)
class Gathered:
    """Rows of `n` windows in a `StoredRows`."""

    positions: NDArray[np.int64]  # [n], of each window's row there; `NO_ROW` where `hit` is False
    hit: NDArray[np.bool_]  # [n], a row was found
    # [n], it is the window's own row and not a shorter n-gram's. This is a hit in lookup counts: after backing off, the
    # tree should still have held the window.
    exact: NDArray[np.bool_]
    inherited: NDArray[np.bool_]  # [n], the row is an ancestor's and not of the domain's own table


@dataclass(frozen=True, slots=True)
class Lookup(Gathered):
    """`rows` are float32 `[n, hidden]`, decoded; zero where `hit` is False."""

    rows: NDArray[np.float32]


class KnowledgeTree:
    """One immutable version. A batch that holds a reference is not affected when the next version is published.

    Thread-safe for lookups. `number` 0 is the empty tree; a domain without n-grams of its own may have no table.
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
        """`functions` are digests of every domain's function; None: all domains have that of the tables.

        Raises `Corrupt` where parents are no tree, or a table does not belong here.
        """
        self.number = number
        self.parents = dict(parents)
        self.tables = dict(tables)
        self.row_dtype = row_dtype
        self.hidden_size = hidden_size
        chains = ancestor_chains(parents)
        if functions is None:
            only = next((table.meta.function for table in self.tables.values()), None)
            self._functions: dict[str, str | None] = dict.fromkeys(self.parents, only)
        elif unknown := [domain for domain in self.parents if domain not in functions]:
            raise Corrupt(f"tree {number} names no function for domain {unknown[0]}")
        else:
            self._functions = {domain: functions[domain] for domain in self.parents}
        self._check_tables()
        self._chains = {domain: AncestorChain(chain, self.tables, self._functions) for domain, chain in chains.items()}

    def _check_tables(self) -> None:
        for domain, table in self.tables.items():
            meta = table.meta
            if domain not in self.parents:
                raise Corrupt(f"tree {self.number} has a table for domain {domain}, which does not exist")
            if meta.domain != domain:
                raise Corrupt(f"tree {self.number}: the table of {domain} was built for {meta.domain}")
            if (meta.row_dtype, meta.hidden_size) != (self.row_dtype, self.hidden_size):
                found, expected = f"{meta.row_dtype} x {meta.hidden_size}", f"{self.row_dtype} x {self.hidden_size}"
                raise Corrupt(f"tree {self.number}: the table of {domain} holds rows of {found} instead of {expected}")
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
        """Touch all pages of all tables, best before the tree replaces another."""
        for table in self.tables.values():
            table.warm()

    def chain(self, domain: str) -> tuple[str, ...]:
        """Return the domain, its parent, ..., the root. Raises `NotFound`."""
        return self._chain(domain).domains

    def function_of(self, domain: str) -> str | None:
        """Return the digest of the domain's function; None for an unknown domain, or where there are no tables."""
        return self._functions.get(domain)

    def _chain(self, domain: str) -> AncestorChain:
        try:
            return self._chains[domain]
        except KeyError:
            raise NotFound(f"tree {self.number} has no domain {domain}") from None

    def gather(self, domain: str, keys: Keys, rows: StoredRows, *, backoff: bool = False) -> Gathered:
        """Copy windows' rows into `rows`, not decoded yet, each from the nearest domain on the chain that holds it.

        A foreign ancestor's row is taken only where an alias allows it, see `AncestorChain.find`. At most as many rows
        are added as there are keys.

        With `backoff`, a window that is not held gets another row, see `AncestorChain.find_backoff`. Then `hit` is
        False only where not even the unigram is held.

        Raises `NotFound` for an unknown domain.
        """
        chain = self._chain(domain)
        # Sorted queries find their neighbours' path through the keys still in the cache, and text repeats itself.
        unique, inverse = np.unique(keys, return_inverse=True)
        refs = chain.find(unique)
        exact = refs.table >= 0
        if backoff:
            missing = np.flatnonzero(~exact)
            other, _ = chain.find_backoff(unique[missing])
            refs.table[missing], refs.row[missing] = other.table, other.row
        positions = np.full(len(unique), NO_ROW, np.int64)
        for number, table in enumerate(chain.tables):
            here = np.flatnonzero(refs.table == number)
            if len(here):
                positions[here] = rows.add(table, refs.row[here])
        inherited = refs.table >= (1 if chain.has_own else 0)
        at = positions[inverse]
        return Gathered(at, at != NO_ROW, exact[inverse], inherited[inverse])

    def lookup(self, domain: str, keys: Keys, *, backoff: bool = False) -> Lookup:
        """Return windows' rows, decoded; arguments as in `gather`."""
        rows = StoredRows(self.row_dtype, self.hidden_size, len(keys))
        found = self.gather(domain, keys, rows, backoff=backoff)
        return Lookup(found.positions, found.hit, found.exact, found.inherited, rows.decode(found.positions))

    def next_best(self, domain: str, keys: Keys) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """Return the rows that keys `[n]` would get under `backoff` if their own were not held: float32 `[n, hidden]`,
        zero where there is none; and the levels of `AncestorChain.find_backoff`. Raises `NotFound`."""
        chain = self._chain(domain)
        refs, levels = chain.find_backoff(keys)
        rows = np.zeros((len(keys), self.hidden_size), np.float32)
        found = np.flatnonzero(levels >= 0)
        rows[found] = decode(gather_rows(chain.tables, refs[found], self.row_dtype, self.hidden_size))
        return rows, levels

    def holder_positions(self, domain: str, keys: Keys) -> NDArray[np.int16]:
        """Return, for each key `[n]`, the position in `chain(domain)` of the domain whose row a lookup gets; -1 for a
        miss. Raises `NotFound`."""
        chain = self._chain(domain)
        unique, inverse = np.unique(keys, return_inverse=True)
        table = chain.find(unique).table[inverse]
        return np.where(table >= 0, chain.positions[table], np.int16(-1)) if len(chain.positions) else table
