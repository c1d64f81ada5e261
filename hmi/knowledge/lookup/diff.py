"""What two versions of a knowledge tree hold differently: set operations on ascending keys, rows never read.

A domain holds a key as a row or as an alias. A key that only went up or down the ancestor chain has *moved*: it is held
by a *relative* of the domain, an ancestor of the same function, whose rows serve the domain, or a descendant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.domains import Parents, ancestor_chains
from hmi.knowledge.ngrams import Keys, holds
from hmi.knowledge.store import Table

__all__ = ["DomainDiff", "Size", "TreeContents", "WeightedKeys", "diff_trees"]

_BLOCK = 1 << 20  # keys at a time: of tables of any size, only what differs is kept


@dataclass(frozen=True, slots=True)
class TreeContents:
    """One version of a tree: its tables by domain, and the parents that it was built with."""

    tables: Mapping[str, Table]
    parents: Parents

    def relatives(self, domain: str, function: str) -> list[Table]:
        """Tables that may have a domain's n-grams in its place: of ancestors of its function, and of descendants."""
        lines = ancestor_chains(self.parents)
        above = lines.get(domain, ())[1:]
        return [
            table
            for each, table in self.tables.items()
            if (each in above and table.meta.function == function) or domain in lines.get(each, ())[1:]
        ]


@dataclass(frozen=True, slots=True)
class Size:
    """Of one domain's table: n-grams with a row, n-grams with an alias, bytes on disk."""

    entries: int
    aliases: int
    bytes: int

    @classmethod
    def of(cls, table: Table | None) -> Size:
        return cls(0, 0, 0) if table is None else cls(table.meta.entries, table.meta.aliases, table.bytes)


@dataclass(frozen=True, slots=True)
class DomainDiff:
    """One domain in two versions.

    Attributes:
        added: Ascending keys that the domain holds in the later version alone, and no relative held before.
        dropped: Ascending keys that it held in the earlier version alone, and no relative holds now.
        moved_in: How many keys came here that a relative held before.
        moved_out: How many keys went from here that a relative holds now.
    """

    before: Size
    after: Size
    added: Keys
    dropped: Keys
    moved_in: int
    moved_out: int


def diff_trees(earlier: TreeContents, later: TreeContents) -> dict[str, DomainDiff]:
    """The difference of each domain that has a table in either version, or is in the later one's tree.

    Takes memory for the keys that differ, 8 bytes each. Raises `Corrupt` where parents are no tree.
    """
    found = {}
    for domain in sorted({*earlier.tables, *later.tables, *later.parents}):
        old, new = earlier.tables.get(domain), later.tables.get(domain)
        before, after = _function(old, new), _function(new, old)
        added, moved_in = _only_in(new, old, earlier.relatives(domain, before))
        dropped, moved_out = _only_in(old, new, later.relatives(domain, after))
        found[domain] = DomainDiff(Size.of(old), Size.of(new), added, dropped, moved_in, moved_out)
    return found


class WeightedKeys:
    """Keys whose counts come block by block and are summed.

    Attributes:
        keys: uint64 `[n]`, ascending.
        counts: float64 `[n]`.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.counts = np.zeros(len(keys))

    def add(self, keys: Keys, counts: NDArray[np.float64]) -> None:
        """Counts of some keys `[m]`, ascending and each once; those that are not asked about are passed over."""
        if not len(self.keys):
            return
        place = np.searchsorted(self.keys, keys)
        known = np.take(self.keys, place, mode="clip") == keys
        self.counts[place[known]] += counts[known]

    def heaviest(self, limit: int) -> tuple[Keys, NDArray[np.float64]]:
        """Up to `limit` keys and their counts, the heaviest first, of equals the smaller key."""
        order = np.arange(len(self.keys))
        if 0 < limit < len(order):
            # Of a million keys all but a few need no sorting; those as heavy as the last of the few stay for now.
            least = np.partition(self.counts, len(order) - limit)[len(order) - limit]
            order = np.flatnonzero(self.counts >= least)
        order = order[np.lexsort((self.keys[order], -self.counts[order]))][:limit]
        return self.keys[order], self.counts[order]


def _function(table: Table | None, other: Table | None) -> str:
    """A domain's function: of its table, or of the other version's where it has none."""
    found = table or other
    return "" if found is None else found.meta.function


def _only_in(table: Table | None, other: Table | None, relatives: Sequence[Table]) -> tuple[Keys, int]:
    """Keys of `table` that neither `other` nor a relative holds, ascending; and how many only a relative holds."""
    lost, moved = [np.empty(0, np.uint64)], 0
    for keys in _blocks(table):
        mine = keys[~_held([other] if other is not None else [], keys)]
        elsewhere = _held(relatives, mine)
        moved += int(np.count_nonzero(elsewhere))
        lost.append(mine[~elsewhere])
    return np.sort(np.concatenate(lost)), moved


def _blocks(table: Table | None) -> Iterator[Keys]:
    for array in () if table is None else (table.keys, table.aliases):
        for start in range(0, len(array), _BLOCK):
            yield array[start : start + _BLOCK]


def _held(tables: Sequence[Table], keys: Keys) -> NDArray[np.bool_]:
    return holds([each for table in tables for each in (table.keys, table.aliases)], keys)
