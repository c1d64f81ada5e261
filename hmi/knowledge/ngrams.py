"""N-grams as packed keys, sets of keys, and the windows that tokens are seen through.

An encoder's window is (t-1, t, t+1) and its row is the middle token's state. A key packs three token ids, each plus
one, in 21 bits: `(prev + 1) << 42 | (mid + 1) << 21 | (next + 1)`. 0 stands for an absent token. So a key fits a
signed 64-bit column, and ascending keys follow the trie of the n-grams.

A decoder's window is (t-2, t-1, t) and its row is the last token's state. Its key holds t-1, t, t-2 in these places:
the token itself in the middle, as above, and the farthest token as `next`, which is left out first.

At a sequence's start `prev` is absent and at its end `next` is, so the bigram (absent, mid, next) *is* the window of a
sequence's first token. Sequences include their special tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmi.errors import InvalidInput

Keys = NDArray[np.uint64]

NO_KEYS: Keys = np.empty(0, np.uint64)

_BITS = 21
_MASK = np.uint64((1 << _BITS) - 1)
_PREV_SHIFT = np.uint64(2 * _BITS)
_MID_SHIFT = np.uint64(_BITS)
_PREV_FIELD = np.uint64(((1 << _BITS) - 1) << (2 * _BITS))
_MID_FIELD = np.uint64(((1 << _BITS) - 1) << _BITS)

MAX_VOCABULARY = (1 << _BITS) - 1  # largest number of token ids that fit a key


def pack(prev: NDArray[np.int64], mid: NDArray[np.int64], next: NDArray[np.int64]) -> Keys:
    """Pack three arrays of token ids `[n]` into keys `[n]`; -1 is an absent token.

    Raises `InvalidInput` for an id that does not fit.
    """
    return _shifted(prev, -1) << _PREV_SHIFT | _shifted(mid, -1) << _MID_SHIFT | _shifted(next, -1)


def unpack(keys: Keys) -> NDArray[np.int64]:
    """Return token ids `[n, 3]` in the order prev, mid, next; -1 is an absent token."""
    ids = np.empty((len(keys), 3), np.int64)
    ids[:, 0] = keys >> _PREV_SHIFT
    ids[:, 1] = keys >> _MID_SHIFT & _MASK
    ids[:, 2] = keys & _MASK
    ids -= 1
    return ids


def window_keys(ids: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]], *, looks_back: bool = False) -> Keys:
    """Return the key of every token's window, `[total]` in the order of `ids`.

    Args:
        ids: Token ids `[total]` of all sequences, concatenated, special tokens included.
        lengths: Tokens of each sequence `[sequences]`; no window crosses from one into the next.
        looks_back: Use a decoder's windows.

    Raises `InvalidInput` for an id that does not fit a key, `ValueError` for lengths that do not add up.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if total != len(ids) or (len(lengths) and int(lengths.min()) < 0):
        raise ValueError(f"sequence lengths add up to {total}, but there are {len(ids)} token ids")
    tokens = _shifted(ids, 0)
    prev = np.zeros_like(tokens)
    prev[1:] = tokens[:-1]
    ends = ends[np.asarray(lengths) > 0]  # an empty sequence has no border of its own
    starts = ends[:-1]
    prev[starts] = 0
    other = np.zeros_like(tokens)
    if looks_back:
        other[1:] = prev[:-1]
        other[starts] = 0
    else:
        other[:-1] = tokens[1:]
        other[ends - 1] = 0
    return prev << _PREV_SHIFT | tokens << _MID_SHIFT | other


def without_next(keys: Keys) -> Keys:
    """Return the bigrams (prev, mid)."""
    return keys & ~_MASK


def without_prev(keys: Keys) -> Keys:
    """Return the bigrams (mid, next)."""
    return keys & ~_PREV_FIELD


def unigram(keys: Keys) -> Keys:
    """Return the middle token of each key alone."""
    return keys & _MID_FIELD


BACKOFF: tuple[Callable[[Keys], Keys], ...] = (without_next, without_prev, unigram)
"""The shorter n-grams whose row replaces a missing window's under the miss policy `backoff`, the best first."""


def middles(keys: Keys) -> NDArray[np.int64]:
    """Return the middle token of each key, plus one, `[n]`; 0 for an absent one."""
    return (keys >> _MID_SHIFT & _MASK).astype(np.int64)


def unigrams(vocabulary: int) -> Keys:
    """Return the unigram keys of a whole vocabulary, ascending."""
    if not 0 <= vocabulary <= MAX_VOCABULARY:
        raise InvalidInput(f"a vocabulary of {vocabulary} tokens does not fit the keys ({MAX_VOCABULARY})")
    return np.arange(1, vocabulary + 1, dtype=np.uint64) << _MID_SHIFT


def token_keys(ids: NDArray[np.integer[Any]]) -> Keys:
    """Return the unigram keys of these tokens. Raises `InvalidInput` for an id that does not fit."""
    return _shifted(ids, 0) << _MID_SHIFT


def in_vocabulary(keys: Keys, vocabulary: int) -> NDArray[np.bool_]:
    """Return which keys are windows of this vocabulary: a token in the middle, and every id within the vocabulary."""
    most = np.uint64(vocabulary)
    mid = keys >> _MID_SHIFT & _MASK
    return (mid > 0) & (mid <= most) & (keys >> _PREV_SHIFT <= most) & (keys & _MASK <= most)


def holds(sets: Sequence[Keys], keys: Keys) -> NDArray[np.bool_]:
    """Return whether any of the sets (ascending keys) holds each key; bool `[n]`. Faster on ascending keys."""
    held = np.zeros(len(keys), np.bool_)
    for each in sets:
        if len(each):
            held |= np.take(each, np.searchsorted(each, keys), mode="clip") == keys
    return held


def union(sets: Sequence[Keys]) -> Keys:
    """Return all keys of the sets, ascending, without duplicates."""
    filled = [each for each in sets if len(each)]
    if not filled:
        return NO_KEYS
    # `np.unique` of bare values goes through a hash table, many times slower than this for millions of keys.
    keys: Keys = np.sort(np.concatenate(filled))
    once: Keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    return once


def _shifted(ids: NDArray[Any], lowest: int) -> NDArray[np.uint64]:
    """Return `ids + 1` as uint64. Raises `InvalidInput` for an id outside `lowest..MAX_VOCABULARY - 1`."""
    if ids.size:
        low, high = int(ids.min()), int(ids.max())
        if low < lowest or high >= MAX_VOCABULARY:
            raise InvalidInput(f"token id {low if low < lowest else high} is outside {lowest}..{MAX_VOCABULARY - 1}")
    return (ids.astype(np.int64, copy=False) + 1).astype(np.uint64)
