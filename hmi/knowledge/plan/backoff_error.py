"""How far off the row is that stands in for an n-gram under the miss policy `backoff`, measured from stored rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge import ngrams
from hmi.knowledge.counts import BackoffEstimates
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store import RowRefs, Table, find_first

__all__ = ["USUAL_BACKOFF", "MeasuredBackoff", "usual_errors", "usual_gain"]

_CHUNK = 4096  # rows at a time: memory does not grow with the tree
_NOTHING = -1  # level of what nothing stands in for
_ENOUGH = 30  # n-grams to measure a mean on
_USUAL_ERROR, _USUAL_GAIN = 0.4, 0.2
_UNKNOWN_GAIN = 0.5  # of a unigram's error, until bigrams are held that tell


_Find = Callable[[Keys], RowRefs]


class MeasuredBackoff:
    """Relative error |own - next best| / |own|, at most 1, of the next best row in a version of a tree.

    What stands in is what `KnowledgeTree.backoff` takes: the n-gram's own row of another function, of an ancestor, a
    bigram, the unigram; where the functions are far from each other, shorter n-grams of the same one first. Of n-grams
    whose own row is not held, the error is the mean of those that fall back to the same level.
    """

    def __init__(self, tree: KnowledgeTree) -> None:
        self._tree = tree

    def errors(self, domain: str, keys: Keys) -> NDArray[np.float32]:
        """float32 `[n]` for ascending keys `[n]`; 1 where nothing stands in, what is usual where nothing is known."""
        if domain not in self._tree.parents:
            return usual_errors(domain, keys)
        errors = np.full(len(keys), np.nan, np.float32)
        levels = np.empty(len(keys), np.int8)
        for start in range(0, len(keys), _CHUNK):
            part = slice(start, start + _CHUNK)
            errors[part], levels[part] = self._measure(domain, keys[part])
        for level in np.unique(levels).tolist():
            known = errors[(levels == level) & np.isfinite(errors)]
            mean = float(known.mean(dtype=np.float64)) if len(known) else _USUAL_ERROR
            mean = 1.0 if level == _NOTHING else mean
            errors[(levels == level) & np.isnan(errors)] = mean
        return errors

    def bigram_gain(self, domain: str, keys: Keys) -> float:
        """By how much the mean error is less where the bigram (prev, mid) stands in for n-grams, and not the unigram.

        It is measured on a sample of those of the ascending keys whose rows are held; where hardly any such bigram is,
        it is taken for half the error of the unigram.
        """
        tree = self._tree
        if domain not in tree.parents:
            return _USUAL_GAIN
        held = keys[(tree.holder_positions(domain, keys) >= 0) & (ngrams.without_next(keys) != keys)]
        tables = [tree.tables[each] for each in tree.chain(domain) if each in tree.tables]
        known = held[find_first(tables, ngrams.without_next(held)).table >= 0]
        if len(known) >= _ENOUGH:
            some = _sample(known)
            return max(0.0, self._mean(domain, some, ngrams.unigram) - self._mean(domain, some, ngrams.without_next))
        return _UNKNOWN_GAIN * self._mean(domain, _sample(held), ngrams.unigram) if len(held) else _USUAL_GAIN

    def _mean(self, domain: str, keys: Keys, shorten: Callable[[Keys], Keys]) -> float:
        """Mean error of the shorter n-gram's row where there is one; keys are held. 0 where there are none."""
        tree = self._tree
        tables = [tree.tables[each] for each in tree.chain(domain) if each in tree.tables]
        places = find_first(tables, shorten(keys))
        found = places.table >= 0
        if not found.any():
            return 0.0
        own = tree.lookup(domain, keys[found]).rows
        other = _read(tables, RowRefs(places.table[found], places.row[found]), tree.hidden_size)
        return float(_relative(own, other).mean(dtype=np.float64))

    def _measure(self, domain: str, keys: Keys) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """Errors `[n]`, NaN where the own row is not held or nothing stands in; and levels."""
        tree = self._tree
        line = tree.chain(domain)
        tables = [tree.tables[each] for each in line if each in tree.tables]
        foreign = [table for table in tables if table.meta.function != tree.function_of(domain)]
        own = tree.lookup(domain, keys)
        others = np.zeros_like(own.rows)
        levels = np.full(len(keys), _NOTHING, np.int8)
        steps: list[tuple[Callable[[Keys], Keys] | None, Sequence[Table], _Find]] = [
            (None, foreign, functools.partial(find_first, foreign)),
            *((shorten, tables, functools.partial(find_first, tables)) for shorten in ngrams.BACKOFF),
        ]
        if tree.foreign_is_far(domain):
            of_its_own = functools.partial(tree.find, domain)
            steps[:0] = [(shorten, tables, of_its_own) for shorten in ngrams.BACKOFF]
        for level, (shorten, searched, find) in enumerate(steps):
            asked = np.flatnonzero(levels == _NOTHING)
            shorter = keys[asked] if shorten is None else shorten(keys[asked])
            if shorten is not None:
                is_shorter = shorter != keys[asked]
                asked, shorter = asked[is_shorter], shorter[is_shorter]
            places = find(shorter)
            found = places.table >= 0
            others[asked[found]] = _read(searched, RowRefs(places.table[found], places.row[found]), tree.hidden_size)
            levels[asked[found]] = level
        errors = _relative(own.rows, others)
        errors[~own.exact | (levels == _NOTHING)] = np.nan
        return errors, levels


def usual_errors(domain: str, keys: Keys) -> NDArray[np.float32]:
    """For the first version, when there are no rows yet to measure: about what MiniLM's had at k = 3."""
    return np.full(len(keys), _USUAL_ERROR, np.float32)


def usual_gain(domain: str, keys: Keys) -> float:
    """As `MeasuredBackoff.bigram_gain`, likewise."""
    return _USUAL_GAIN


USUAL_BACKOFF = BackoffEstimates(usual_errors, usual_gain)


def _relative(own: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each row is from its own, of its own's length and at most 1; `[n]`."""
    size = np.linalg.norm(own, axis=1)
    distance = np.linalg.norm(own - others, axis=1)
    errors: NDArray[np.float32] = np.minimum(distance, size) / np.maximum(size, np.finfo(np.float32).tiny)
    return errors


def _sample(keys: Keys) -> Keys:
    return keys[:: len(keys) // _CHUNK + 1]


def _read(tables: Sequence[Table], places: RowRefs, hidden_size: int) -> NDArray[np.float32]:
    rows = np.empty((len(places.table), hidden_size), np.float32)
    for position, table in enumerate(tables):
        here = np.flatnonzero(places.table == position)
        if len(here):
            rows[here] = table.read(places.row[here])
    return rows
