"""A few places that go to those who wait for them in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Turns"]


class Turns:
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

    @contextmanager
    def take(self) -> Iterator[None]:
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
