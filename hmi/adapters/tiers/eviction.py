"""Which keys lie in a tier of fixed size, and which of them goes when room is needed. Numbers only, no data.

The order of eviction is LRFU (Lee et al., "LRFU: A spectrum of policies that subsumes the Least Recently
Used and Least Frequently Used policies", 2001): a key is worth its number of uses, each of which counts half
after so many uses of any key. What is used often outlives a scan over many keys used once, and what was used
often long ago still goes in the end. What a key was worth is remembered for a while after it was evicted:
one that is asked for again and again is known at its second coming, however short its stays are.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter

from hmi.errors import Overloaded, TooLarge
from hmi.stats import TierStats

__all__ = ["EvictionPolicy"]

# A use counts half after so many uses for each resident key. Traces of Zipf 1.0 with scans, and with half of
# the keys changing places in the middle, gain most between 8 and 32 at every size of tier.
_HALF_LIFE = 16


class EvictionPolicy:
    """Keys, their sizes, pins and order of eviction. Not thread-safe: its tier holds the lock.

    Every call takes time in the order of log(keys), however many keys there are or are pinned.

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
        self._pinned = 0  # size of the keys that are both there and pinned
        self._doomed: set[str] = set()
        # log2(sum of 2**t over a key's uses at times t in half-lives): the order of two keys changes with a use
        # of one of them and with nothing else.
        self._worth: dict[str, float] = {}
        self._remembered: dict[str, float] = {}  # likewise, of evicted keys; the first evicted first
        self._clock = 0.0  # in half-lives
        # One entry for each key that can go: (worth, admission, key). The worth may have grown since.
        self._heap: list[tuple[float, int, str]] = []
        self._admitted: dict[str, int] = {}
        self._admissions = itertools.count()
        self._aside: set[str] = set()  # keys that left the heap because they were pinned
        self._hits = 0
        self._misses = 0
        self._evictions = 0

    def __contains__(self, key: str) -> bool:
        return key in self._sizes

    def hit(self, key: str) -> None:
        self._hits += 1
        self._use(key)

    def touch(self, key: str) -> None:
        """A use that another tier has served: counted for the order of eviction, not as a hit."""
        self._use(key)

    def miss(self) -> None:
        self._misses += 1

    def admit(self, key: str, size: int) -> list[str]:
        """Enter a key that is not there; gives the keys that must leave for it, already struck out.

        Raises, with nothing changed, `Overloaded` where it cannot fit beside what is pinned, and `TooLarge` where it
        could not if nothing were.
        """
        unit = self._unit_bytes
        if size > self.capacity:
            raise TooLarge(
                f"adapter {key} needs {size * unit} bytes, and the {self._tier} tier has {self.capacity * unit} in all"
            )
        if size > self.capacity - self._pinned:
            raise Overloaded(
                f"adapter {key} needs {size * unit} bytes of the {self._tier} tier's {self.capacity * unit}, "
                f"of which {self._pinned * unit} are in use"
            )
        evicted = []
        while self.used + size > self.capacity:
            evicted.append(self._evict())
        self._sizes[key] = size
        self.used += size
        if key in self._pins:
            self._pinned += size
        self._use(key)
        self._admitted[key] = next(self._admissions)
        self._push(key)
        return evicted

    def pin(self, key: str) -> None:
        """Keep the key, now or when it comes, until as many calls of `unpin`."""
        if key not in self._pins:
            self._pinned += self._sizes.get(key, 0)
        self._pins[key] += 1

    def unpin(self, key: str) -> bool:
        """Undo one `pin`. True where the key was dropped meanwhile and is struck out now."""
        if self._pins[key] < 1:
            raise ValueError(f"{key} is not pinned")
        self._pins[key] -= 1
        if self._pins[key]:
            return False
        del self._pins[key]
        self._pinned -= self._sizes.get(key, 0)
        if key in self._aside:
            self._aside.discard(key)
            self._push(key)
        if key in self._doomed:
            self._doomed.discard(key)
            return self._strike(key)
        return False

    def drop(self, key: str, *, expected: bool = False) -> bool:
        """Strike the key out, at its last `unpin` where it is pinned. True where it was struck out now.

        With `expected`, a key that is on its way in is not kept when it arrives (see `wanted`).
        """
        self._remembered.pop(key, None)
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
        self._clock += 1 / (_HALF_LIFE * max(1, len(self._sizes)))
        before = self._worth.get(key)
        if before is None:
            before = self._remembered.pop(key, -math.inf)
        self._worth[key] = self._clock + math.log2(1 + 2 ** (before - self._clock))

    def _push(self, key: str) -> None:
        heapq.heappush(self._heap, (self._worth[key], self._admitted[key], key))
        # Dropped keys leave their entries behind; sweeping now and then keeps the heap in proportion.
        if len(self._heap) > 64 + 2 * len(self._sizes):
            self._heap = [(self._worth[k], n, k) for k, n in self._admitted.items() if k not in self._aside]
            heapq.heapify(self._heap)

    def _evict(self) -> str:
        while True:
            worth, admission, key = self._heap[0]
            if self._admitted.get(key) != admission:  # of an earlier stay
                heapq.heappop(self._heap)
            elif key in self._pins:
                heapq.heappop(self._heap)
                self._aside.add(key)  # until its last `unpin`
            elif worth < self._worth[key]:
                heapq.heapreplace(self._heap, (self._worth[key], admission, key))
            else:
                heapq.heappop(self._heap)
                self._remember(key)
                self._strike(key)
                self._evictions += 1
                return key

    def _remember(self, key: str) -> None:
        self._remembered[key] = self._worth[key]
        if len(self._remembered) > 64 + len(self._sizes):
            del self._remembered[next(iter(self._remembered))]

    def _strike(self, key: str) -> bool:
        size = self._sizes.pop(key, None)
        if size is None:
            return False
        self.used -= size
        del self._worth[key], self._admitted[key]
        return True
