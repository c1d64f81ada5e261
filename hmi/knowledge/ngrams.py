"""N-grams as packed keys, and the one place that knows which window a token is seen through.

An encoder's window is (t-1, t, t+1) and its row is the middle token's state. A key packs three token
ids, each plus one, in 21 bits: `(prev + 1) << 42 | (mid + 1) << 21 | (next + 1)`; 0 stands for an
absent token, so a key fits a signed 64-bit column and ascending keys follow the trie of the n-grams.

A decoder's window is (t-2, t-1, t) and its row is the last token's state. Its key holds t-1, t, t-2 in these places:
the token itself in the middle as ever, and as `next`, which is left out first, the token that is farthest.

At a sequence's start `prev` is absent and at its end `next` is, so the bigram (absent, mid, next) *is*
the window of a token that stands first. Sequences hold their special tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmi.errors import InvalidInput

__all__ = [
    "BACKOFF",
    "MAX_VOCABULARY",
    "Keys",
    "in_vocabulary",
    "middles",
    "pack",
    "token_keys",
    "unigram",
    "unigrams",
    "unpack",
    "window_keys",
    "without_next",
    "without_prev",
]

Keys = NDArray[np.uint64]

_BITS = 21
_MASK = np.uint64((1 << _BITS) - 1)
_PREV_SHIFT = np.uint64(2 * _BITS)
_MID_SHIFT = np.uint64(_BITS)
_PREV_FIELD = np.uint64(((1 << _BITS) - 1) << (2 * _BITS))
_MID_FIELD = np.uint64(((1 << _BITS) - 1) << _BITS)

MAX_VOCABULARY = (1 << _BITS) - 1
"""Most token ids that a key can tell apart."""


def _shifted(ids: NDArray[Any], lowest: int) -> NDArray[np.uint64]:
    """`ids + 1` as uint64. Raises `InvalidInput` for an id outside `lowest..MAX_VOCABULARY - 1`."""
    if ids.size:
        low, high = int(ids.min()), int(ids.max())
        if low < lowest or high >= MAX_VOCABULARY:
            raise InvalidInput(f"token id {low if low < lowest else high} is outside {lowest}..{MAX_VOCABULARY - 1}")
    return (ids.astype(np.int64, copy=False) + 1).astype(np.uint64)


def pack(prev: NDArray[np.int64], mid: NDArray[np.int64], next: NDArray[np.int64]) -> Keys:
    """Keys `[n]` of three arrays of token ids `[n]`; -1 is an absent token.

    Raises `InvalidInput` for an id that does not fit.
    """
    return _shifted(prev, -1) << _PREV_SHIFT | _shifted(mid, -1) << _MID_SHIFT | _shifted(next, -1)


def unpack(keys: Keys) -> NDArray[np.int64]:
    """Token ids `[n, 3]` in the order prev, mid, next; -1 is an absent token."""
    ids = np.empty((len(keys), 3), np.int64)
    ids[:, 0] = keys >> _PREV_SHIFT
    ids[:, 1] = keys >> _MID_SHIFT & _MASK
    ids[:, 2] = keys & _MASK
    ids -= 1
    return ids


def window_keys(ids: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]], *, looks_back: bool = False) -> Keys:
    """The key of every token's window.

    Args:
        ids: Token ids `[total]` of all sequences, one after the other, special tokens included.
        lengths: Tokens of each sequence `[sequences]`; no window crosses from one into the next.
        looks_back: A decoder's windows.

    Returns:
        Keys `[total]`, in the order of `ids`.

    Raises:
        InvalidInput: A token id does not fit a key.
        ValueError: The lengths do not add up to the number of ids.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if total != len(ids) or (len(lengths) and int(lengths.min()) < 0):
        raise ValueError(f"sequence lengths add up to {total}, but there are {len(ids)} token ids")
    tokens = _shifted(ids, 0)
    prev = np.zeros_like(tokens)
    prev[1:] = tokens[:-1]
    whole = ends[np.asarray(lengths) > 0]  # an empty sequence has no border of its own
    starts = whole[:-1]
    prev[starts] = 0
    other = np.zeros_like(tokens)
    if looks_back:
        other[1:] = prev[:-1]
        other[starts] = 0
    else:
        other[:-1] = tokens[1:]
        other[whole - 1] = 0
    return prev << _PREV_SHIFT | tokens << _MID_SHIFT | other


def without_next(keys: Keys) -> Keys:
    """The bigrams (prev, mid)."""
    return keys & ~_MASK


def without_prev(keys: Keys) -> Keys:
    """The bigrams (mid, next)."""
    return keys & ~_PREV_FIELD


def unigram(keys: Keys) -> Keys:
    """The token itself, alone."""
    return keys & _MID_FIELD


def middles(keys: Keys) -> NDArray[np.int64]:
    """The middle token of each key, plus one, `[n]`: 0 for none."""
    return (keys >> _MID_SHIFT & _MASK).astype(np.int64)


BACKOFF: tuple[Callable[[Keys], Keys], ...] = (without_next, without_prev, unigram)
"""What may stand in for a window that is not held, the best first."""


def unigrams(vocabulary: int) -> Keys:
    """Keys of all tokens of a vocabulary alone, ascending."""
    if not 0 <= vocabulary <= MAX_VOCABULARY:
        raise InvalidInput(f"a vocabulary of {vocabulary} tokens does not fit the keys ({MAX_VOCABULARY})")
    return np.arange(1, vocabulary + 1, dtype=np.uint64) << _MID_SHIFT


def token_keys(ids: NDArray[np.integer[Any]]) -> Keys:
    """Keys of these tokens alone. Raises `InvalidInput` for an id that does not fit."""
    return _shifted(ids, 0) << _MID_SHIFT


def in_vocabulary(keys: Keys, vocabulary: int) -> NDArray[np.bool_]:
    """True for windows of this vocabulary: a token in the middle, and no id beyond the last."""
    most = np.uint64(vocabulary)
    mid = keys >> _MID_SHIFT & _MASK
    return (mid > 0) & (mid <= most) & (keys >> _PREV_SHIFT <= most) & (keys & _MASK <= most)
