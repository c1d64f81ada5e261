"""Locks that `threading` lacks: one that is shared or exclusive, and a semaphore that serves in order of arrival."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

__all__ = ["FairSemaphore", "SharedLock"]


class SharedLock:
    """Many run together, or one alone; who waits to be alone goes before those who come later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._alone = False
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many wait to be alone."""
        return self._waiting

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._alone and not self._running)
            finally:
                self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


class FairSemaphore:
    """Whoever gives the turn back and asks again comes after all who wait.

    `threading.Semaphore` promises nothing of the kind: a loop that takes it again at once can keep everybody
    else out for as long as it runs.

    Args:
        places: How many may have a turn at a time.
    """

    def __init__(self, places: int = 1) -> None:
        self._places = places
        self._waiting: deque[object] = deque()
        self._moved = threading.Condition()

    @contextlib.contextmanager
    def acquire(self) -> Iterator[None]:
        """Wait for a turn, and have it until the block ends."""
        mine = object()
        with self._moved:
            self._waiting.append(mine)
            try:
                self._moved.wait_for(lambda: self._places and self._waiting[0] is mine)
            finally:
                self._waiting.remove(mine)
                self._moved.notify_all()
            self._places -= 1
        try:
            yield
        finally:
            with self._moved:
                self._places += 1
                self._moved.notify_all()
