"""How two versions of a knowledge tree differ: set operations on ascending keys, without reading rows.

A domain holds a key as a row or as an alias. A key that only went up or down the ancestor chain has *moved*: it is held
by a *relative* of the domain, an ancestor of the same function, whose rows serve the domain, or a descendant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.domains import Parents, ancestor_chains
from hmi.knowledge.ngrams import NO_KEYS, Keys, holds
from hmi.knowledge.store import Table

_BLOCK = 1 << 20  # keys at a time: of tables of any size, only what differs is kept


@dataclass(frozen=True, slots=True)
class TreeContents:
    """One version of a tree: its tables by domain, and the parents that it was built with."""

    tables: Mapping[str, Table]
    parents: Parents

    def relatives(self, domain: str, function: str) -> list[Table]:
        """Return the tables of a domain's ancestors of its function, and of its descendants."""
        chains = ancestor_chains(self.parents)
        above = chains.get(domain, ())[1:]
        return [
            table
            for each, table in self.tables.items()
            if (each in above and table.meta.function == function) or domain in chains.get(each, ())[1:]
        ]


@dataclass(frozen=True, slots=True)
class TableSize:
    """Number of rows, number of aliases, and bytes on disk of one domain's table."""

    entries: int = 0
    aliases: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, table: Table | None) -> TableSize:
        return cls() if table is None else cls(table.meta.entries, table.meta.aliases, table.bytes)


@dataclass(frozen=True, slots=True)
class DomainDiff:
    before: TableSize
    after: TableSize
    added: Keys  # ascending; held only in the later version, and by no relative before
    dropped: Keys  # ascending; held only in the earlier version, and by no relative now
    moved_in: int  # number of keys that came from a relative
    moved_out: int  # number of keys that went to a relative


TreeDiff = Mapping[str, DomainDiff]
"""By domain."""


def diff_trees(earlier: TreeContents, later: TreeContents) -> TreeDiff:
    """Compare each domain that has a table in either version, or is in the later version's tree.

    Takes memory for the keys that differ, 8 bytes each. Raises `Corrupt` where parents are no tree.
    """
    diff = {}
    for domain in sorted({*earlier.tables, *later.tables, *later.parents}):
        old, new = earlier.tables.get(domain), later.tables.get(domain)
        before, after = _function(old, new), _function(new, old)
        added, moved_in = _only_in(new, old, earlier.relatives(domain, before))
        dropped, moved_out = _only_in(old, new, later.relatives(domain, after))
        diff[domain] = DomainDiff(TableSize.of(old), TableSize.of(new), added, dropped, moved_in, moved_out)
    return diff


class WeightedKeys:
    """Keys whose counts arrive block by block and are summed."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys  # ascending [n]
        self.counts = np.zeros(len(keys))

    def add(self, keys: Keys, counts: NDArray[np.float64]) -> None:
        """Add counts of keys `[m]`, ascending without duplicates; keys that are not in `self.keys` are ignored."""
        if not len(self.keys):
            return
        place = np.searchsorted(self.keys, keys)
        known = np.take(self.keys, place, mode="clip") == keys
        self.counts[place[known]] += counts[known]

    def heaviest(self, limit: int) -> tuple[Keys, NDArray[np.float64]]:
        """Return up to `limit` keys with a count, the heaviest first, among equals the smaller key first."""
        order = np.flatnonzero(self.counts > 0)
        if 0 < limit < len(order):
            # Of a million keys all but a few need no sorting; ties with the last of the few stay for now.
            counts = self.counts[order]
            order = order[counts >= np.partition(counts, len(order) - limit)[len(order) - limit]]
        order = order[np.lexsort((self.keys[order], -self.counts[order]))][:limit]
        return self.keys[order], self.counts[order]


def _function(table: Table | None, other: Table | None) -> str:
    """Return a domain's function: its table's, or the other version's where it has none."""
    found = table or other
    return "" if found is None else found.meta.function


def _only_in(table: Table | None, other: Table | None, relatives: Sequence[Table]) -> tuple[Keys, int]:
    """Return the keys of `table` that neither `other` nor a relative holds, and how many only a relative holds."""
    lost, moved = [NO_KEYS], 0
    for array in () if table is None else (table.keys, table.aliases):
        for start in range(0, len(array), _BLOCK):
            keys = array[start : start + _BLOCK]
            mine = keys[~_held([] if other is None else [other], keys)]
            elsewhere = _held(relatives, mine)
            moved += int(np.count_nonzero(elsewhere))
            lost.append(mine[~elsewhere])
    return np.sort(np.concatenate(lost)), moved


def _held(tables: Sequence[Table], keys: Keys) -> NDArray[np.bool_]:
    return holds([each for table in tables for each in (table.keys, table.aliases)], keys)
