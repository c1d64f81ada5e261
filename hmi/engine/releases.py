"""Word of room in the tiers: who found none for an adapter tries again when somebody has given one back."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["CapacityEvents"]


class CapacityEvents:
    """Counts how often adapters were given back, to host memory or on the device. Thread-safe."""

    def __init__(self) -> None:
        self._count = 0
        self._wakers: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """To be read before a try: where it has changed after, another may go better."""
        return self._count

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` after each release, on the thread that gave back, which must hold no lock that `wake` wants."""
        with self._lock:
            self._wakers.append(wake)

    def unsubscribe(self, wake: Callable[[], None]) -> None:
        """Twice is no error."""
        with self._lock:
            if wake in self._wakers:
                self._wakers.remove(wake)

    def add(self) -> None:
        with self._lock:
            self._count += 1
            wakers = list(self._wakers)
        for wake in wakers:
            wake()
