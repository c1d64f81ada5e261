"""Rows computed for missing windows, kept in host memory until a rebuild takes them into the tree.

They serve the next lookups of the same window, function and scope. A rebuild reads them and need not compute them.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.lookup.cache_index import AssociativeIndex
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store import NO_ROW, EncodedRows, StoredRows, decode, encode, entry_bytes
from hmi.spec import RowDtype
from hmi.stats import MissCacheStats

_Group = tuple[str, str]  # digest of a function, scope


class MissCache:
    """Rows of one base model by (function, scope, window), encoded as tables store them. Thread-safe.

    A row does not depend on its scope. Keeping scopes apart hides from one what another asked for: a row that is kept
    is there sooner than one that is computed.
    """

    def __init__(self, max_bytes: int, row_dtype: RowDtype, hidden_size: int) -> None:
        """`max_bytes` limits rows and index of all functions together; 0 keeps nothing."""
        self.row_dtype = row_dtype
        self.hidden_size = hidden_size
        self._max_bytes = max_bytes
        # The key's 8 bytes are in the index.
        self._row_bytes = entry_bytes(row_dtype, hidden_size) - 8 + AssociativeIndex.PLACE_BYTES
        self._index = AssociativeIndex(max_bytes // self._row_bytes)
        self._rows = EncodedRows.empty(self._index.places, row_dtype, hidden_size)
        self._groups: dict[_Group, int] = {}  # never 0
        self._lock = threading.Lock()
        self._lookups = 0
        self._hits = 0

    def gather(self, function: str, scope: str, keys: Keys, rows: StoredRows) -> NDArray[np.int64]:
        """Copy the rows of windows `[n]` (any order, duplicates allowed) into `rows`, not decoded yet; count the use.

        Return the position of each in `rows`, `NO_ROW` where it is not held. `function` is a digest.
        """
        with self._lock:
            places = self._places((function, scope), keys)
            found = np.flatnonzero(places >= 0)
            places = places[found]
            self._index.use(places)
            self._lookups += len(keys)
            self._hits += len(places)
            encoded = self._rows.take(places)
        positions = np.full(len(keys), NO_ROW, np.int64)
        positions[found] = rows.add_encoded(encoded)
        return positions

    def add(self, function: str, scope: str, keys: Keys, rows: NDArray[np.float32]) -> None:
        """Keep rows float32 `[n, hidden]` of windows `[n]` without duplicates, rounded as stored rows are.

        Under pressure, a new window may be rejected; it is admitted when it comes again.

        Raises `Corrupt` for rows that are not finite.
        """
        encoded = encode(rows, self.row_dtype)
        with self._lock:
            group = self._groups.setdefault((function, scope), len(self._groups) + 1)
            places = self._index.offer(group, keys)
            new = np.flatnonzero(places >= 0)
            self._rows.put(places[new], encoded.take(new))

    def read(self, function: str, keys: Keys) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return which keys `[n]` are held in any scope, and their rows float32 `[held, hidden]`.

        For a rebuild: it does not count as a use.
        """
        with self._lock:
            places = np.full(len(keys), -1, np.int64)
            for group in [each for each in self._groups if each[0] == function]:
                missing = np.flatnonzero(places < 0)
                places[missing] = self._places(group, keys[missing])
            encoded = self._rows.take(places[places >= 0])
        return places >= 0, decode(encoded)

    def stats(self) -> MissCacheStats:
        with self._lock:
            entries = len(self._index)
            return MissCacheStats(
                entries=entries,
                bytes=entries * self._row_bytes,
                budget_bytes=self._max_bytes,
                lookups=self._lookups,
                hits=self._hits,
                evictions=self._index.evictions,
            )

    def _places(self, group: _Group, keys: Keys) -> NDArray[np.int64]:
        number = self._groups.get(group)
        return np.full(len(keys), -1, np.int64) if number is None else self._index.find(number, keys)
