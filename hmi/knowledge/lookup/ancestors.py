"""A domain's ancestor chain as lookups search it: tables, nearest first, in runs of one function each.

Within a run, the row of any table serves the domain. A foreign ancestor's row (see `domains`) is another model's: it is
taken only for keys that are aliases in a table below. `find_holders` says where a key's row comes from, without reading
rows.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.ngrams import BACKOFF, Keys, unigram
from hmi.knowledge.store import RowRefs, Table, decode, find_first, gather_rows

_SAMPLE = 512  # rows of each table
_FAR = 0.3  # of a row's length: the mean distance of the bigram (prev, mid)'s row from its window's


@dataclass(frozen=True, slots=True)
class _FunctionRun:
    """Consecutive tables of one function: `start` to `stop` of the chain's tables."""

    start: int
    stop: int
    aliasing: tuple[Table, ...]  # those whose aliases refer to the next run's function


class AncestorChain:
    def __init__(
        self, domains: Sequence[str], tables: Mapping[str, Table], functions: Mapping[str, str | None]
    ) -> None:
        self.domains = tuple(domains)  # the domain, its parent, ..., the root
        with_table = [i for i, each in enumerate(domains) if each in tables]
        self.positions = np.array(with_table, np.int16)  # [tables], of each table's domain in `domains`
        self.tables = tuple(tables[domains[i]] for i in with_table)
        self.has_own = domains[0] in tables
        self._runs = _function_runs(self.domains, tables, functions)

    def find(self, keys: Keys) -> RowRefs:
        """Find where lookups of `keys` `[n]` (ascending, for speed) take their row: one of the domain's own function,
        or a foreign ancestor's that an alias allows. `RowRefs.table` counts in `tables`."""
        nearest = self._runs[0]
        refs = find_first(self.tables[nearest.start : nearest.stop], keys)
        if len(self._runs) == 1 or not nearest.aliasing:
            return refs
        missing = np.flatnonzero(refs.table < 0)
        for below, run in itertools.pairwise(self._runs):
            queries = keys[missing]
            is_alias = np.zeros(len(missing), bool)
            for table in below.aliasing:
                is_alias |= table.is_alias(queries)
            missing = missing[is_alias]
            if not len(missing):
                break
            above = find_first(self.tables[run.start : run.stop], keys[missing])
            found = above.table >= 0
            refs.table[missing[found]] = above.table[found] + run.start
            refs.row[missing[found]] = above.row[found]
            missing = missing[~found]
        return refs

    def find_backoff(self, keys: Keys) -> tuple[RowRefs, NDArray[np.int8]]:
        """Find the row that each key `[n]` gets under the miss policy `backoff` when its own row is not held.

        It is the n-gram's row of a foreign ancestor, else that of the longest shorter n-gram, each from the nearest
        table of any function. If foreign rows are far, shorter n-grams of the domain's own function come first. Also
        return the number of the step that found each, -1 where none did.
        """
        refs = RowRefs(np.full(len(keys), -1, np.int16), np.zeros(len(keys), np.int64))
        levels = np.full(len(keys), -1, np.int8)
        missing = np.arange(len(keys))
        for level, (shorten, find) in enumerate(self._backoff_steps() if len(keys) else ()):
            candidates, shorter = missing, keys[missing]
            if shorten is not None:
                shorter = shorten(shorter)
                is_shorter = shorter != keys[missing]
                candidates, shorter = missing[is_shorter], shorter[is_shorter]
            unique, inverse = np.unique(shorter, return_inverse=True)
            found = find(unique)[inverse]
            held = found.table >= 0
            at = candidates[held]
            refs.table[at], refs.row[at], levels[at] = found.table[held], found.row[held], level
            missing = missing[levels[missing] < 0]
            if not len(missing):
                break
        return refs, levels

    def _backoff_steps(self) -> list[tuple[Callable[[Keys], Keys] | None, Callable[[Keys], RowRefs]]]:
        """Functions that shorten keys (None: leave them as they are) and that find the shorter keys, in order."""
        steps = [(shorten, functools.partial(find_first, self.tables)) for shorten in BACKOFF]
        if len(self._runs) == 1:
            return [*steps]
        own = [(shorten, self.find) for shorten in BACKOFF] if self.foreign_is_far else []
        return [*own, (None, self._find_foreign), *steps]

    def _find_foreign(self, keys: Keys) -> RowRefs:
        start = self._runs[0].stop
        refs = find_first(self.tables[start:], keys)
        refs.table[refs.table >= 0] += start
        return refs

    @functools.cached_property
    def foreign_is_far(self) -> bool:
        """Whether foreign rows are so far from the domain's that a shorter n-gram's row of its own function is closer
        to a window's row than the foreign row of the window itself.

        Measured on a sample of n-grams that both have, aliases counted as equal; False where there are none.
        """
        if len(self._runs) == 1:
            return False
        own, above = self.tables[: self._runs[0].stop], self.tables[self._runs[0].stop :]
        distance = shared = 0.0
        for table in own:
            # All unigrams are held whatever is requested, so they say little about requested n-grams.
            longer = np.flatnonzero(unigram(table.keys) != table.keys)
            refs = find_first(above, table.keys[longer])
            both = np.flatnonzero(refs.table >= 0)
            sample = both[:: len(both) // _SAMPLE + 1]
            if len(sample):
                ours = table.read(longer[sample])
                theirs = decode(gather_rows(above, refs[sample], table.meta.row_dtype, table.meta.hidden_size))
                apart = np.linalg.norm(ours - theirs, axis=1) / np.maximum(np.linalg.norm(ours, axis=1), 1e-12)
                distance += float(apart.mean()) * len(both)
            shared += len(both) + int(np.count_nonzero(unigram(table.aliases) != table.aliases))
        return shared > 0 and distance / shared > _FAR


def _function_runs(
    domains: Sequence[str], tables: Mapping[str, Table], functions: Mapping[str, str | None]
) -> tuple[_FunctionRun, ...]:
    grouped = [(function, list(each)) for function, each in itertools.groupby(domains, key=functions.__getitem__)]
    runs, start = list[_FunctionRun](), 0
    for (_, members), (above, _) in itertools.zip_longest(grouped, grouped[1:], fillvalue=(None, [])):
        own = [tables[each] for each in members if each in tables]
        aliasing = tuple(table for table in own if table.meta.aliases and table.meta.alias_function == above)
        runs.append(_FunctionRun(start, start + len(own), aliasing))
        start += len(own)
    return tuple(runs)


class KeyLocation(StrEnum):
    """Whose row a lookup of an n-gram takes."""

    OWN = "own"
    INHERITED = "inherited"  # an ancestor's of the same function
    ALIAS = "alias"  # a foreign ancestor's, which an alias allows
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Holder:
    location: KeyLocation
    domain: str | None  # whose row is taken; None where there is none


def find_holders(
    keys: Keys, chain: Sequence[str], tables: Mapping[str, Table], functions: Mapping[str, str]
) -> list[Holder]:
    """Return, for each key `[n]` in any order, where a lookup in the chain's first domain gets its row.

    A table that is not of its domain's function is skipped, as lookups do; `functions` are digests by domain.
    """
    usable = {each: tables[each] for each in chain if each in tables and tables[each].meta.function == functions[each]}
    searched = AncestorChain(chain, usable, functions)

    def holder(table: int) -> Holder:
        if table < 0:
            return Holder(KeyLocation.MISSING, None)
        domain = chain[int(searched.positions[table])]
        if domain == chain[0]:
            return Holder(KeyLocation.OWN, domain)
        same = functions[domain] == functions[chain[0]]
        return Holder(KeyLocation.INHERITED if same else KeyLocation.ALIAS, domain)

    return [holder(int(table)) for table in searched.find(keys).table]
