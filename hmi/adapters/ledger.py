"""Which keys lie in a tier of fixed size, and which of them goes when room is needed. Numbers only, no data.

The order of eviction is LFU with dynamic aging (Arlitt et al., "Evaluating content management techniques
for Web proxy caches", 2000): a key's value is its number of uses plus the value that the last evicted key
had. What is used often outlives a scan over many keys used once, and what was used often long ago still
goes in the end.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from dataclasses import asdict, dataclass

from hmi.errors import Overloaded

__all__ = ["Ledger", "TierStats"]


@dataclass(frozen=True, slots=True)
class TierStats:
    """How full a tier is and how often it had what was asked for."""

    entries: int
    bytes: int
    budget_bytes: int
    hits: int
    misses: int
    evictions: int

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


class Ledger:
    """Keys, their sizes, pins and order of eviction. Not thread-safe: its tier holds the lock.

    Args:
        capacity: In units of `unit_bytes`.
        tier: Named in error messages ("host", "device").
    """

    def __init__(self, capacity: int, *, unit_bytes: int = 1, tier: str) -> None:
        self.capacity = capacity
        self.used = 0
        self._unit_bytes = unit_bytes
        self._tier = tier
        self._sizes: dict[str, int] = {}
        self._pins: Counter[str] = Counter()
        self._doomed: set[str] = set()
        self._uses: dict[str, int] = {}
        self._place: dict[str, tuple[int, int]] = {}  # (value, turn): equal values go in order of last use
        self._heap: list[tuple[int, int, str]] = []
        self._turns = itertools.count()
        self._age = 0
        self._hits = 0
        self._misses = 0
        self._evictions = 0

    def __contains__(self, key: str) -> bool:
        return key in self._sizes

    def hit(self, key: str) -> None:
        self._hits += 1
        self._use(key)

    def miss(self) -> None:
        self._misses += 1

    def admit(self, key: str, size: int) -> list[str]:
        """Enter a key that is not there; gives the keys that must leave for it, already struck out.

        Raises `Overloaded`, with nothing changed, where it cannot fit beside what is pinned.
        """
        pinned = sum(self._sizes.get(each, 0) for each in self._pins)
        if size > self.capacity - pinned:
            unit = self._unit_bytes
            raise Overloaded(
                f"adapter {key} needs {size * unit} bytes of the {self._tier} tier's {self.capacity * unit}, "
                f"of which {pinned * unit} are in use"
            )
        evicted = []
        while self.used + size > self.capacity:
            evicted.append(self._evict())
        self._sizes[key] = size
        self.used += size
        self._use(key)
        return evicted

    def pin(self, key: str) -> None:
        """Keep the key, now or when it comes, until as many calls of `unpin`."""
        self._pins[key] += 1

    def unpin(self, key: str) -> bool:
        """Undo one `pin`. True where the key was dropped meanwhile and is struck out now."""
        if self._pins[key] < 1:
            raise ValueError(f"{key} is not pinned")
        self._pins[key] -= 1
        if self._pins[key]:
            return False
        del self._pins[key]
        self._push(key)
        if key in self._doomed:
            self._doomed.discard(key)
            return self._strike(key)
        return False

    def drop(self, key: str, *, expected: bool = False) -> bool:
        """Strike the key out, at its last `unpin` where it is pinned. True where it was struck out now.

        With `expected`, a key that is on its way in is not kept when it arrives (see `wanted`).
        """
        if key in self._pins or expected:
            self._doomed.add(key)
            return False
        return self._strike(key)

    def wanted(self, key: str) -> bool:
        """Whether an arriving key should be admitted: False once where it was dropped on its way and nobody pins it."""
        if key in self._doomed and key not in self._pins:
            self._doomed.discard(key)
            return False
        return True

    def stats(self) -> TierStats:
        return TierStats(
            entries=len(self._sizes),
            bytes=self.used * self._unit_bytes,
            budget_bytes=self.capacity * self._unit_bytes,
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
        )

    def _use(self, key: str) -> None:
        self._uses[key] = self._uses.get(key, 0) + 1
        self._place[key] = (self._age + self._uses[key], next(self._turns))
        self._push(key)

    def _push(self, key: str) -> None:
        if key not in self._place:
            return
        heapq.heappush(self._heap, (*self._place[key], key))
        # Each use leaves an outdated entry behind; sweeping now and then keeps the heap in proportion.
        if len(self._heap) > 64 + 4 * len(self._sizes):
            self._heap = [(*place, each) for each, place in self._place.items()]
            heapq.heapify(self._heap)

    def _evict(self) -> str:
        while True:
            value, turn, key = heapq.heappop(self._heap)
            # A pinned key leaves the heap and comes back with its last `unpin`.
            if self._place.get(key) == (value, turn) and key not in self._pins:
                self._age = value
                self._evictions += 1
                self._strike(key)
                return key

    def _strike(self, key: str) -> bool:
        size = self._sizes.pop(key, None)
        if size is None:
            return False
        self.used -= size
        del self._uses[key], self._place[key]
        return True
