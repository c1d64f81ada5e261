"""A lock that goes to those who wait for it in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Turns"]


class Turns:
    """Whoever gives the turn back and asks again comes after all who wait.

    `threading.Lock` promises nothing of the kind: a loop that takes it again at once can keep everybody
    else out for as long as it runs.
    """

    def __init__(self) -> None:
        self._order: deque[object] = deque()
        self._moved = threading.Condition()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a turn, and have it until the block ends."""
        mine = object()
        with self._moved:
            self._order.append(mine)
        try:
            with self._moved:
                self._moved.wait_for(lambda: self._order[0] is mine)
            yield
        finally:
            with self._moved:
                self._order.remove(mine)
                self._moved.notify_all()
