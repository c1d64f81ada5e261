"""Locks that `threading` lacks: one that is shared or exclusive, and a semaphore that is fair."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

__all__ = ["FairSemaphore", "SharedLock"]


class SharedLock:
    """Held by many at once, or by one exclusively; a waiting exclusive holder goes before later shared ones."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shared = 0
        self._is_exclusive = False
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many wait for exclusive use."""
        return self._waiting

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_exclusive and not self._waiting)
            self._shared += 1
        try:
            yield
        finally:
            with self._changed:
                self._shared -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._is_exclusive and not self._shared)
            finally:
                self._waiting -= 1
            self._is_exclusive = True
        try:
            yield
        finally:
            with self._changed:
                self._is_exclusive = False
                self._changed.notify_all()


class FairSemaphore:
    """A semaphore that is acquired in the order of arrival.

    `threading.Semaphore` promises no order: a loop that acquires it again at once can lock all others out.

    Args:
        places: How many may hold it at a time.
    """

    def __init__(self, places: int = 1) -> None:
        self._places = places
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def acquire(self) -> Iterator[None]:
        """Wait for a place, and hold it until the block ends."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._places and self._waiting[0] is ticket)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            self._places -= 1
        try:
            yield
        finally:
            with self._changed:
                self._places += 1
                self._changed.notify_all()
