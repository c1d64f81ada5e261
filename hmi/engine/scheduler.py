"""Which sequences run together: decided with numbers alone, no tensor and no clock.

Batches are cut by length under a token budget, from the oldest waiting sequences first. Sequences of
any tenants share a batch; only those of different base models cannot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["BatchLimits", "Entry", "Scheduler", "cut_batches"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """See `EngineConfig` for what each means."""

    tokens: int
    rows: int
    padding_share: float
    window_batches: int = 16


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A waiting sequence: `length` in tokens; only entries of one `group` share a batch."""

    length: int
    group: str
    payload: T


def cut_batches(entries: Iterable[Entry[T]], limits: BatchLimits) -> list[list[Entry[T]]]:
    """Cut entries into batches, longest first within a group.

    A batch keeps rows x longest within the token budget (a single longer sequence runs alone) and is
    closed early where one more would push padding over its share, unless it is still under half full:
    a few wasted tokens cost less than a batch of few rows.
    """
    batches: list[list[Entry[T]]] = []
    current: list[Entry[T]] = []
    real = 0
    for entry in sorted(entries, key=lambda e: (e.group, -e.length)):
        if current:
            longest, padded = current[0].length, current[0].length * (len(current) + 1)
            full = len(current) >= limits.rows or padded > limits.tokens or entry.group != current[0].group
            wasteful = 1 - (real + entry.length) / padded > limits.padding_share
            half_full = 2 * len(current) >= limits.rows or 2 * longest * len(current) >= limits.tokens
            if full or (wasteful and half_full):
                batches.append(current)
                current, real = [], 0
        current.append(entry)
        real += entry.length
    if current:
        batches.append(current)
    return batches


class Scheduler(Generic[T]):
    """Holds waiting sequences and hands out batches. Not thread-safe; its owner locks."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: deque[Entry[T]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, entries: Sequence[Entry[T]]) -> None:
        self._waiting.extend(entries)

    def take(self) -> list[list[Entry[T]]]:
        """Batches of the oldest sequences, at most about `window_batches` budgets of tokens."""
        room = self._limits.window_batches * self._limits.tokens
        window: list[Entry[T]] = []
        while self._waiting and (room >= self._waiting[0].length or not window):
            entry = self._waiting.popleft()
            room -= entry.length
            window.append(entry)
        return cut_batches(window, self._limits)
