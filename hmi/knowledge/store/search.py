"""Finding many keys at once in one long ascending array."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.ngrams import Keys

_BLOCK = 64  # a power of two; the first key of every block is kept in memory: 1/64 of a table's keys
_FEW = 256  # keys: for fewer, the calls of the second step cost more than they save


class KeySearch:
    """Searches in two steps: binary search over the first key of every block, which the core's cache holds, then the
    place within the block, for all keys at once. A binary search through the whole array waits for memory at each of
    its last steps; here the waits of thousands of keys overlap. Thread-safe.
    """

    def __init__(self, keys: Keys) -> None:
        """`keys` ascend, without duplicates."""
        self._keys = keys

    @cached_property
    def _firsts(self) -> Keys:
        # Read when it is first needed: opening a table must not wait for a disk.
        return self._keys[::_BLOCK].copy()

    def find(self, queries: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the index of each query `[n]`, and whether it is held; without that the index means nothing.

        Several times faster on ascending queries.
        """
        if not len(self._keys) or not len(queries):
            return np.zeros(len(queries), np.int64), np.zeros(len(queries), bool)
        if len(queries) < _FEW:
            at = np.searchsorted(self._keys, queries).astype(np.int64, copy=False)
            return at, np.take(self._keys, at, mode="clip") == queries
        at = np.searchsorted(self._firsts, queries, side="right").astype(np.int64, copy=False)
        at -= 1
        np.maximum(at, 0, out=at)  # less than the first: it will not be found
        at *= _BLOCK
        # The key at `at` is never greater than the query; advance by halves while that holds.
        further, there, is_further = np.empty_like(at), np.empty_like(queries), np.empty(len(at), bool)
        step = _BLOCK // 2
        while step:
            np.add(at, step, out=further)
            np.take(self._keys, further, out=there, mode="clip")
            np.less_equal(there, queries, out=is_further)
            np.multiply(is_further, step, out=further)
            at += further
            step //= 2
        np.minimum(at, len(self._keys) - 1, out=at)  # past the end, `clip` took the last key
        np.take(self._keys, at, out=there, mode="clip")
        return at, np.equal(there, queries, out=is_further)

    def warm(self) -> None:
        """Read the first key of every block into memory."""
        _ = self._firsts
