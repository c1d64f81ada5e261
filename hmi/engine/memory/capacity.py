"""Waiting for room: adapters that do not fit beside those in use are tried again when others are released."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class CapacityEvents:
    """Counts how often adapters were released, in host memory or on the device. Thread-safe."""

    def __init__(self) -> None:
        self._count = 0
        self._subscribers: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Read it before an attempt: if it has changed since, another attempt may succeed."""
        return self._count

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each event, on the notifying thread, which must hold no lock that it takes."""
        with self._lock:
            self._subscribers.append(callback)

    def unsubscribe(self, callback: Callable[[], None]) -> None:
        """Does nothing where the callback is not subscribed."""
        with self._lock:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

    def notify(self) -> None:
        with self._lock:
            self._count += 1
            subscribers = list(self._subscribers)
        for callback in subscribers:
            callback()


class Deferred(Generic[T]):
    """Work that found no room for its adapters. For one thread."""

    def __init__(self, events: CapacityEvents) -> None:
        self._events = events
        self._entries: list[tuple[int, T]] = []  # (count of events before the attempt, work)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def may_fit(self) -> bool:
        """Whether something was released since the attempt of one of them."""
        return any(tried != self._events.count for tried, _ in self._entries)

    def add(self, work: T, tried: int) -> None:
        """Defer work whose attempt began when `CapacityEvents.count` was `tried`."""
        self._entries.append((tried, work))

    def discard(self, work: T) -> None:
        self._entries = [entry for entry in self._entries if entry[1] is not work]

    def take(self) -> list[T]:
        """Remove and return all work, in the order in which it came."""
        entries, self._entries = self._entries, []
        return [work for _, work in entries]
