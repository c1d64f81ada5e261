"""The accounting of a tier of fixed size: which keys it holds, and which key is evicted next. Numbers only, no data.

The order of eviction is LRFU (Lee et al., "LRFU: A spectrum of policies that subsumes the Least Recently Used and
Least Frequently Used policies", 2001): a key's score is the number of its uses, and the weight of a use halves after
a number of uses of any key. So frequent keys survive a scan over many keys used once, and a key that was frequent long
ago is evicted in the end. The scores of evicted keys are kept for a while (ghost entries): a key that returns again
and again keeps its score, however short its stays are.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter

from hmi.errors import Overloaded, TooLarge
from hmi.stats import TierStats

# The weight of a use halves after this many uses per resident key. Traces of Zipf 1.0 with scans, and with half of
# the keys replaced in the middle, gain most between 8 and 32 at every size of tier.
_HALF_LIFE = 16


class EvictionPolicy:
    """Keys, their sizes, pins and order of eviction. Not thread-safe: the tier holds the lock.

    Every call takes O(log keys) time, however many keys are pinned. `capacity` is in units of `unit_bytes`; `tier` is
    named in error messages.
    """

    def __init__(self, capacity: int, *, unit_bytes: int = 1, tier: str) -> None:
        self.capacity = capacity
        self.used = 0
        self._unit_bytes = unit_bytes
        self._tier = tier
        self._sizes: dict[str, int] = {}
        self._pins: Counter[str] = Counter()
        self._pinned = 0  # total size of the resident keys that are pinned
        self._dropped: set[str] = set()  # dropped while pinned or while being loaded
        # log2(sum of 2**t over a key's uses at times t in half-lives). A use of another key does not change it.
        self._scores: dict[str, float] = {}
        self._ghosts: dict[str, float] = {}  # scores of evicted keys, in the order of their eviction
        self._clock = 0.0  # in half-lives
        # One entry for each key that can be evicted: (score, admission, key). The score may have grown since.
        self._heap: list[tuple[float, int, str]] = []
        self._admitted: dict[str, int] = {}
        self._admissions = itertools.count()
        self._set_aside: set[str] = set()  # keys that left the heap because they were pinned
        self._hits = 0
        self._misses = 0
        self._evictions = 0

    def __contains__(self, key: str) -> bool:
        return key in self._sizes

    def hit(self, key: str) -> None:
        self._hits += 1
        self.touch(key)

    def touch(self, key: str) -> None:
        """Count a use that another tier served: it counts for the order of eviction, not as a hit."""
        self._clock += 1 / (_HALF_LIFE * max(1, len(self._sizes)))
        before = self._scores.get(key)
        if before is None:
            before = self._ghosts.pop(key, -math.inf)
        self._scores[key] = self._clock + math.log2(1 + 2 ** (before - self._clock))

    def miss(self) -> None:
        self._misses += 1

    def admit(self, key: str, size: int) -> list[str]:
        """Enter an absent key; return the keys that were evicted for it.

        Raises, with nothing changed, `Overloaded` where it cannot fit beside the pinned keys, and `TooLarge` where it
        could not fit into an empty tier.
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
        self.touch(key)
        self._admitted[key] = next(self._admissions)
        self._push(key)
        return evicted

    def pin(self, key: str) -> None:
        """Keep the key, now or once it is admitted, until `unpin` was called as often."""
        if key not in self._pins:
            self._pinned += self._sizes.get(key, 0)
        self._pins[key] += 1

    def unpin(self, key: str) -> bool:
        """Undo one `pin`. Return True where the key was dropped while pinned and is removed now."""
        if self._pins[key] < 1:
            raise ValueError(f"{key} is not pinned")
        self._pins[key] -= 1
        if self._pins[key]:
            return False
        del self._pins[key]
        self._pinned -= self._sizes.get(key, 0)
        if key in self._set_aside:
            self._set_aside.discard(key)
            self._push(key)
        if key in self._dropped:
            self._dropped.discard(key)
            return self._remove(key)
        return False

    def drop(self, key: str, *, loading: bool = False) -> bool:
        """Remove the key, at its last `unpin` where it is pinned. Return True where it was removed now.

        With `loading`, the key is not admitted when its load ends (see `should_admit`).
        """
        self._ghosts.pop(key, None)
        if key in self._pins or loading:
            self._dropped.add(key)
            return False
        return self._remove(key)

    def should_admit(self, key: str) -> bool:
        """Return whether to admit a loaded key: False, once, where it was dropped during the load and is not pinned."""
        if key in self._dropped and key not in self._pins:
            self._dropped.discard(key)
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

    def _push(self, key: str) -> None:
        heapq.heappush(self._heap, (self._scores[key], self._admitted[key], key))
        # Dropped keys leave stale entries; rebuilding now and then bounds the heap.
        if len(self._heap) > 64 + 2 * len(self._sizes):
            self._heap = [(self._scores[k], n, k) for k, n in self._admitted.items() if k not in self._set_aside]
            heapq.heapify(self._heap)

    def _evict(self) -> str:
        while True:
            score, admission, key = self._heap[0]
            if self._admitted.get(key) != admission:  # stale: from an earlier stay
                heapq.heappop(self._heap)
            elif key in self._pins:
                heapq.heappop(self._heap)
                self._set_aside.add(key)  # until its last `unpin`
            elif score < self._scores[key]:
                heapq.heapreplace(self._heap, (self._scores[key], admission, key))
            else:
                heapq.heappop(self._heap)
                self._ghosts[key] = score
                if len(self._ghosts) > 64 + len(self._sizes):
                    del self._ghosts[next(iter(self._ghosts))]
                self._remove(key)
                self._evictions += 1
                return key

    def _remove(self, key: str) -> bool:
        size = self._sizes.pop(key, None)
        if size is None:
            return False
        self.used -= size
        del self._scores[key], self._admitted[key]
        return True
