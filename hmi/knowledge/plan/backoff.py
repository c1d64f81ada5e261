"""How far a row under the miss policy `backoff` is from the window's own, measured on stored rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge import ngrams
from hmi.knowledge.counts import BackoffEstimates
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store import decode, find_first, gather_rows

_CHUNK = 4096  # rows at a time: memory does not grow with the tree
_ENOUGH = 30  # n-grams to measure a mean on
_TYPICAL_ERROR, _TYPICAL_GAIN = 0.4, 0.2  # about those of MiniLM at k = 3
_UNKNOWN_GAIN = 0.5  # of a unigram's error, while too few bigrams are held to measure it

TYPICAL_BACKOFF = BackoffEstimates(
    lambda domain, keys: np.full(len(keys), _TYPICAL_ERROR, np.float32), lambda domain, keys: _TYPICAL_GAIN
)
"""For the first version, when there are no rows to measure."""


def measured_backoff(tree: KnowledgeTree) -> BackoffEstimates:
    """Measure on a version of a tree: relative errors |own - other| / |own|, at most 1, where `other` is the row that
    the key gets if its own is not held (`KnowledgeTree.next_best`).

    The error of a key whose own row is not held is the mean of the keys that back off to the same level; 1 where there
    is no other row, the typical error where nothing was measured. The bigrams' gain is measured on a sample of the keys
    whose rows are held. If hardly any of their bigrams are, it is half the error of the unigram.
    """
    measure = _Measure(tree)
    return BackoffEstimates(measure.errors, measure.bigram_gain)


class _Measure:
    def __init__(self, tree: KnowledgeTree) -> None:
        self._tree = tree

    def errors(self, domain: str, keys: Keys) -> NDArray[np.float32]:
        tree = self._tree
        if domain not in tree.parents:
            return TYPICAL_BACKOFF.errors(domain, keys)
        errors = np.full(len(keys), np.nan, np.float32)  # NaN: not measured
        levels = np.empty(len(keys), np.int8)
        for start in range(0, len(keys), _CHUNK):
            part = slice(start, start + _CHUNK)
            own = tree.lookup(domain, keys[part])
            other, levels[part] = tree.next_best(domain, keys[part])
            errors[part] = np.where(own.exact & (levels[part] >= 0), _relative_error(own.rows, other), np.nan)
        for level in np.unique(levels).tolist():
            here = levels == level
            known = errors[here & np.isfinite(errors)]
            mean = float(known.mean(dtype=np.float64)) if len(known) else _TYPICAL_ERROR
            errors[here & np.isnan(errors)] = mean if level >= 0 else 1.0
        return errors

    def bigram_gain(self, domain: str, keys: Keys) -> float:
        tree = self._tree
        if domain not in tree.parents:
            return _TYPICAL_GAIN
        held = keys[(tree.holder_positions(domain, keys) >= 0) & (ngrams.without_next(keys) != keys)]
        tables = [tree.tables[each] for each in tree.chain(domain) if each in tree.tables]
        known = held[find_first(tables, ngrams.without_next(held)).table >= 0]

        def mean_error(keys: Keys, shorten: Callable[[Keys], Keys]) -> float:
            """Return the shorter n-gram's mean error on a sample of held keys; 0 where none is held."""
            sample = keys[:: len(keys) // _CHUNK + 1]
            refs = find_first(tables, shorten(sample))
            found = refs.table >= 0
            if not found.any():
                return 0.0
            own = tree.lookup(domain, sample[found]).rows
            other = decode(gather_rows(tables, refs[found], tree.row_dtype, tree.hidden_size))
            return float(_relative_error(own, other).mean(dtype=np.float64))

        if len(known) >= _ENOUGH:
            return max(0.0, mean_error(known, ngrams.unigram) - mean_error(known, ngrams.without_next))
        return _UNKNOWN_GAIN * mean_error(held, ngrams.unigram) if len(held) else _TYPICAL_GAIN


def _relative_error(own: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the distance of each row from its own, relative to its own length and at most 1; `[n]`."""
    size = np.linalg.norm(own, axis=1)
    distance = np.linalg.norm(own - other, axis=1)
    errors: NDArray[np.float32] = np.minimum(distance, size) / np.maximum(size, np.finfo(np.float32).tiny)
    return errors
