"""What stands in for a text's windows, under the miss policy `backoff`, where the tree does not know the text.

A tenant's training text is in the trees that are built of its domain, and the texts that the tenant will ask are not.
Trained on whole windows a model would meet estimates, or bigrams and unigrams, in serving for the first time. So each
text is seen as a tree sees it that was built of all the others: leave one out, as the trees' own plans estimate hit
rates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge import BACKOFF, Keys, unigram
from hmi.training.lower.states import WindowView

__all__ = ["SimulatedTree", "leave_one_out", "longest_known"]

_SHORTER = BACKOFF[:-1]  # unigrams are always held


def leave_one_out(windows: Keys, lengths: NDArray[np.int64]) -> Keys:
    """For every window `[tokens]` of some texts, the longest n-gram of it that another of the texts has too.

    Args:
        lengths: Tokens of each text.
    """
    ngrams = np.concatenate([windows, *(shorter(windows) for shorter in _SHORTER)])
    return longest_known(windows, _in_several(ngrams, lengths))


def _in_several(ngrams: Keys, lengths: NDArray[np.int64]) -> Keys:
    """Ascending, those of the n-grams that more than one of the texts has. They are one or more rounds of n-grams, one
    for each token of all texts."""
    text = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    pairs = np.unique(np.stack([ngrams, np.tile(text, len(ngrams) // len(text))], axis=1), axis=0)  # n-gram, text
    keys, texts = np.unique(pairs[:, 0], return_counts=True)
    return keys[texts > 1]


def longest_known(windows: Keys, known: Keys) -> Keys:
    """For every window the longest n-gram of it that is among the known ones, the token alone where none is.

    Args:
        known: Windows and bigrams, ascending.
    """
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
    """The sight of a tree that is built of what is learnt from. To be used as `LowerStates`' `see`.

    Args:
        estimates: What the tree lacks is estimated, and no shorter n-gram stands in for it.
    """

    def __init__(self, *, estimates: bool = False) -> None:
        self._estimates = estimates
        self._known: Keys = np.zeros(0, np.uint64)

    def learnt(self, windows: Keys, lengths: NDArray[np.int64]) -> WindowView:
        """What each text that is learnt from would be given if the tree did not know it."""
        if self._estimates:
            self._known = np.unique(windows)
            return WindowView(windows, ~_is_in(windows, _in_several(windows, lengths)))
        self._known = np.unique(np.concatenate([windows, *(shorter(windows) for shorter in _SHORTER)]))
        return WindowView(leave_one_out(windows, lengths))

    def others(self, windows: Keys, lengths: NDArray[np.int64]) -> WindowView:
        """What texts are given that were not learnt from."""
        if self._estimates:
            return WindowView(windows, ~_is_in(windows, self._known))
        return WindowView(longest_known(windows, self._known))
