"""Backoff training data: what a tree that does not know a text gives for its windows under the miss policy `backoff`.

The trees of a domain contain a tenant's training text and not the texts of its later requests. A model trained on whole
windows would first meet estimates, or bigrams and unigrams, in serving. So each text is shown as a tree built from all
the others would show it: leave one out, as the tree planner estimates hit rates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge import BACKOFF, Keys, unigram
from hmi.training.lower.states import WindowView

_SHORTER = BACKOFF[:-1]  # a tree always holds the unigrams


def leave_one_out(windows: Keys, lengths: NDArray[np.int64]) -> Keys:
    """For every window `[tokens]` of texts of these lengths, its longest n-gram that another of the texts has too."""
    ngrams = np.concatenate([windows, *(shorter(windows) for shorter in _SHORTER)])
    return longest_known(windows, _in_several(ngrams, lengths))


def _in_several(ngrams: Keys, lengths: NDArray[np.int64]) -> Keys:
    """Ascending, the n-grams that more than one text has. `ngrams` holds one n-gram for each token of all texts, one
    or more times over."""
    text = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    pairs = np.unique(np.stack([ngrams, np.tile(text, len(ngrams) // len(text))], axis=1), axis=0)  # n-gram, text
    keys, texts = np.unique(pairs[:, 0], return_counts=True)
    return keys[texts > 1]


def longest_known(windows: Keys, known: Keys) -> Keys:
    """For every window its longest n-gram among the `known` windows and bigrams, ascending, at least the unigram."""
    found = unigram(windows)
    missing = np.ones(len(windows), np.bool_)
    for shorter in (lambda keys: keys, *_SHORTER):
        ngrams = shorter(windows)
        held = missing & _is_in(ngrams, known)
        found[held] = ngrams[held]
        missing &= ~held
    return found


def _is_in(keys: Keys, known: Keys) -> NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(keys), np.bool_)
    held: NDArray[np.bool_] = known[np.searchsorted(known, keys).clip(max=len(known) - 1)] == keys
    return held


class SimulatedTree:
    """A tree built from the training texts, as two views for `LowerStates`. `view_train` comes first.

    Misses are estimated if it `estimates`; otherwise the longest known n-gram replaces them.
    """

    def __init__(self, *, estimates: bool = False) -> None:
        self._estimates = estimates
        self._known: Keys = np.zeros(0, np.uint64)

    def view_train(self, windows: Keys, lengths: NDArray[np.int64]) -> WindowView:
        """Each training text as a tree built from the others shows it."""
        if self._estimates:
            self._known = np.unique(windows)
            return WindowView(windows, ~_is_in(windows, _in_several(windows, lengths)))
        self._known = np.unique(np.concatenate([windows, *(shorter(windows) for shorter in _SHORTER)]))
        return WindowView(leave_one_out(windows, lengths))

    def view_other(self, windows: Keys, lengths: NDArray[np.int64]) -> WindowView:
        """Texts that were not trained on."""
        if self._estimates:
            return WindowView(windows, ~_is_in(windows, self._known))
        return WindowView(longest_known(windows, self._known))
