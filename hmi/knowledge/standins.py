"""How far off the row is that stands in for an n-gram under the miss policy `backoff`, measured from stored rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge import ngrams
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.table import Places, Table, find_first
from hmi.knowledge.tree import KnowledgeTree

__all__ = ["StandInErrors"]

_CHUNK = 4096  # rows at a time: memory does not grow with the tree
_NOTHING = -1  # level of what nothing stands in for


class StandInErrors:
    """Relative error |own - next best| / |own|, at most 1, of the next best row in a version of a tree.

    What stands in, the best first: the n-gram's own row of another function, of an ancestor; a bigram; the unigram. Of
    n-grams whose own row is not held, the error is the mean of those that fall back to the same level.
    """

    def __init__(self, tree: KnowledgeTree) -> None:
        self._tree = tree

    def __call__(self, domain: str, keys: Keys) -> NDArray[np.float32]:
        """float32 `[n]` for ascending keys `[n]`; 1 where nothing stands in or nothing is known."""
        if domain not in self._tree.parents:
            return np.ones(len(keys), np.float32)
        errors = np.full(len(keys), np.nan, np.float32)
        levels = np.empty(len(keys), np.int8)
        for start in range(0, len(keys), _CHUNK):
            part = slice(start, start + _CHUNK)
            errors[part], levels[part] = self._measure(domain, keys[part])
        for level in np.unique(levels).tolist():
            known = errors[(levels == level) & np.isfinite(errors)]
            mean = float(known.mean(dtype=np.float64)) if len(known) and level != _NOTHING else 1.0
            errors[(levels == level) & np.isnan(errors)] = mean
        return errors

    def _measure(self, domain: str, keys: Keys) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """Errors `[n]`, NaN where the own row is not held or nothing stands in; and levels."""
        tree = self._tree
        line = tree.line(domain)
        tables = [tree.tables[each] for each in line if each in tree.tables]
        foreign = [table for table in tables if table.meta.function != tree.function_of(domain)]
        own = tree.lookup(domain, keys)
        others = np.zeros_like(own.rows)
        levels = np.full(len(keys), _NOTHING, np.int8)
        for level, shorten in enumerate((None, *ngrams.BACKOFF)):
            asked = np.flatnonzero(levels == _NOTHING)
            shorter = keys[asked] if shorten is None else shorten(keys[asked])
            if shorten is not None:
                is_shorter = shorter != keys[asked]
                asked, shorter = asked[is_shorter], shorter[is_shorter]
            searched = foreign if shorten is None else tables
            places = find_first(searched, shorter)
            found = places.table >= 0
            others[asked[found]] = _read(searched, Places(places.table[found], places.row[found]), tree.hidden_size)
            levels[asked[found]] = level
        size = np.linalg.norm(own.rows, axis=1)
        distance = np.linalg.norm(own.rows - others, axis=1)
        errors = np.minimum(distance, size) / np.maximum(size, np.finfo(np.float32).tiny)
        errors[~own.exact | (levels == _NOTHING)] = np.nan
        return errors.astype(np.float32), levels


def _read(tables: Sequence[Table], places: Places, hidden_size: int) -> NDArray[np.float32]:
    rows = np.empty((len(places.table), hidden_size), np.float32)
    for position, table in enumerate(tables):
        here = np.flatnonzero(places.table == position)
        if len(here):
            rows[here] = table.read(places.row[here])
    return rows
