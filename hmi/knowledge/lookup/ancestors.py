"""A domain's line of ancestors as lookups walk it: tables, nearest first, in segments of one function each.

Rows of one function stand in for one another whichever ancestor holds them. Where the function changes on the way up,
an ancestor's row is another model's: it is taken only for keys that a table below aliases as being as good.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmi.knowledge.ngrams import Keys, unigram
from hmi.knowledge.store import RowRefs, Table, find_first

__all__ = ["AncestorChain"]


_SAMPLE = 512  # rows of each table
_FAR = 0.3  # of a row's length: how far the row of a bigram (prev, mid) is from that of its window, on average


@dataclass(frozen=True, slots=True)
class _FunctionRun:
    """Attributes:
    start, stop: Which of the line's tables are of this function.
    marking: Those of them whose aliases refer to the next segment's function.
    """

    start: int
    stop: int
    marking: tuple[Table, ...]


class AncestorChain:
    """Attributes:
    domains: The domain, its parent, ..., the root.
    tables: Of those of them that have one, in this order.
    positions: int16 `[tables]`, each table's domain in `domains`.
    """

    def __init__(
        self, domains: Sequence[str], tables: Mapping[str, Table], functions: Mapping[str, str | None]
    ) -> None:
        self.domains = tuple(domains)
        with_table = [i for i, each in enumerate(domains) if each in tables]
        self.positions = np.array(with_table, np.int16)
        self.tables = tuple(tables[domains[i]] for i in with_table)
        self.has_own = domains[0] in tables
        self._segments = _segments(self.domains, tables, functions)

    @property
    def crosses(self) -> bool:
        """Whether its domains have more than one function."""
        return len(self._segments) > 1

    def find(self, keys: Keys) -> RowRefs:
        """Where lookups of `keys` `[n]` (ascending, for speed) find a row of the domain's own function, or one that is
        marked as standing in for it. `RowRefs.table` counts in `tables`."""
        nearest = self._segments[0]
        places = find_first(self.tables[nearest.start : nearest.stop], keys)
        if not self.crosses or not nearest.marking:
            return places
        asked = np.flatnonzero(places.table < 0)
        for below, segment in itertools.pairwise(self._segments):
            wanted = keys[asked]
            marked = np.zeros(len(asked), bool)
            for table in below.marking:
                marked |= table.is_alias(wanted)
            asked = asked[marked]
            if not len(asked):
                break
            above = find_first(self.tables[segment.start : segment.stop], keys[asked])
            found = above.table >= 0
            places.table[asked[found]] = above.table[found] + segment.start
            places.row[asked[found]] = above.row[found]
            asked = asked[~found]
        return places

    @functools.cached_property
    def foreign_is_far(self) -> bool:
        """Whether the domain's rows are so far from those of another function above that one of these, of the very same
        n-gram, is a worse stand-in than a shorter one's of its own function. Measured on a sample of those that both
        have, aliases counted as equal; where there are none, nothing is far."""
        if not self.crosses:
            return False
        own, above = self.tables[: self._segments[0].stop], self.tables[self._segments[0].stop :]
        apart = shared = 0.0
        for table in own:
            # Unigrams are all there, whoever asks for them: they say little of the n-grams that are asked for.
            longer = np.flatnonzero(unigram(table.keys) != table.keys)
            places = find_first(above, table.keys[longer])
            both = np.flatnonzero(places.table >= 0)
            some = both[:: len(both) // _SAMPLE + 1]
            if len(some):
                ours = table.read(longer[some])
                theirs = np.empty_like(ours)
                for number, each in enumerate(above):
                    here = places.table[some] == number
                    theirs[here] = each.read(places.row[some][here])
                distance = np.linalg.norm(ours - theirs, axis=1) / np.maximum(np.linalg.norm(ours, axis=1), 1e-12)
                apart += float(distance.mean()) * len(both)
            aliases = int(np.count_nonzero(unigram(table.aliases) != table.aliases))
            shared += len(both) + aliases
        return shared > 0 and apart / shared > _FAR

    def find_anywhere(self, keys: Keys) -> RowRefs:
        """The nearest table that holds each key, of whatever function."""
        return find_first(self.tables, keys)


def _segments(
    domains: Sequence[str], tables: Mapping[str, Table], functions: Mapping[str, str | None]
) -> tuple[_FunctionRun, ...]:
    runs = [(function, list(each)) for function, each in itertools.groupby(domains, key=functions.__getitem__)]
    segments, start = list[_FunctionRun](), 0
    for (_, members), (above, _) in itertools.zip_longest(runs, runs[1:], fillvalue=(None, [])):
        own = [tables[each] for each in members if each in tables]
        marking = tuple(table for table in own if table.meta.aliases and table.meta.alias_function == above)
        segments.append(_FunctionRun(start, start + len(own), marking))
        start += len(own)
    return tuple(segments)
