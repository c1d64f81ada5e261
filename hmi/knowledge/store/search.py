"""Finding many keys at a time in one long ascending array."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.ngrams import Keys

__all__ = ["KeySearch"]

_BLOCK = 64  # a power of two; the first key of every block is kept in memory: 1/64 of a table's keys
_FEW = 256  # keys: for fewer, the calls of the second step cost more than they save


class KeySearch:
    """Finds keys in two steps: the block by binary search over every block's first key, which the core's cache
    holds, then the place in it, for all keys at once.

    A binary search through the whole array waits for memory at each of its last steps; here the waits of thousands of
    keys overlap. Safe to use from many threads at once.
    """

    def __init__(self, keys: Keys) -> None:
        """`keys` ascend, each once."""
        self._keys = keys

    @cached_property
    def _firsts(self) -> Keys:
        # Read when it is first needed and not when a table is opened, which must not wait for a disk.
        return self._keys[::_BLOCK].copy()

    def find(self, wanted: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """For each of the keys `[n]` its index, where it is held; and whether it is. Faster where `wanted` ascends."""
        if not len(self._keys) or not len(wanted):
            return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
        if len(wanted) < _FEW:
            at = np.searchsorted(self._keys, wanted).astype(np.int64, copy=False)
            return at, np.take(self._keys, at, mode="clip") == wanted
        at = np.searchsorted(self._firsts, wanted, side="right").astype(np.int64, copy=False)
        at -= 1
        np.maximum(at, 0, out=at)  # less than the first: it will not be found
        at *= _BLOCK
        # The key at `at` is never greater than what is wanted; move on by halves while that holds.
        further, there, is_further = np.empty_like(at), np.empty_like(wanted), np.empty(len(at), bool)
        step = _BLOCK // 2
        while step:
            np.add(at, step, out=further)
            np.take(self._keys, further, out=there, mode="clip")
            np.less_equal(there, wanted, out=is_further)
            np.multiply(is_further, step, out=further)
            at += further
            step //= 2
        np.minimum(at, len(self._keys) - 1, out=at)  # beyond the end stands what `clip` took: the last key
        np.take(self._keys, at, out=there, mode="clip")
        return at, np.equal(there, wanted, out=is_further)

    def warm(self) -> None:
        """Have the blocks' first keys in memory."""
        _ = self._firsts
