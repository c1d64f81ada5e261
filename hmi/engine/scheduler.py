"""Which sequences run together: decided with numbers alone, no tensor and no clock.

Waiting sequences are sorted by length and cut into batches where padding, plus a fixed price for each batch, is least.
The batch with the oldest sequence leaves; the rest is cut anew for the next one, together with what has arrived. So a
batch is as full and as even as the waiting sequences allow, no sequence starves, and no batch waits for arrivals.

Sequences of any tenants share a batch, unless their groups (base models) differ. Submissions leave in the order in
which they arrive: the worker submits large jobs in shards, so that others run between them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_STEPS = 8  # cuts are tried at each new length, and within a length at steps of this part of a full batch
# How far to either side of the oldest sequence cuts are tried, in full batches. Farther ones hardly move the cuts here,
# and so a batch costs the same whether thousands wait or hundreds of thousands.
_REACH = 2
_SMALL = 0.25  # of the token budget: a smaller batch may exceed its padding share


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """See `EngineConfig`."""

    tokens: int
    rows: int
    padding_share: float
    # On a CPU core a token takes 5 to 10 % longer in a batch of 512 tokens than in one of 4,096 (BERT-base and MiniLM,
    # bfloat16): as if the small batch had some 40 tokens more than it has.
    batch_cost: int = 48

    def full(self, length: int) -> int:
        """Rows of a full batch of sequences of `length`; one where a single sequence is over the budget."""
        return max(1, min(self.rows, self.tokens // length))


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A waiting sequence."""

    length: int  # in tokens, at least 1
    group: str  # only entries of one group share a batch
    payload: T


class Scheduler(Generic[T]):
    """Forms batches of waiting sequences. Not thread-safe; its owner locks."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._groups: dict[str, dict[int, deque[tuple[int, Entry[T]]]]] = {}  # by length, each in order of arrival
        self._arrived = 0
        self._taken = 0

    def __len__(self) -> int:
        return self._arrived - self._taken

    def add(self, entries: Sequence[Entry[T]]) -> None:
        for entry in entries:
            self._groups.setdefault(entry.group, {}).setdefault(entry.length, deque()).append((self._arrived, entry))
            self._arrived += 1

    def take_batch(self) -> list[Entry[T]]:
        """The next batch, longest first, with the oldest sequence in it; empty where nothing waits.

        rows x longest stays within the token budget (a single longer sequence runs alone), and padding within its share
        unless the batch is small.
        """
        if not len(self):
            return []
        _, group, oldest = min(
            (q[0][0], g, length) for g, queues in self._groups.items() for length, q in queues.items()
        )
        queues = self._groups[group]
        batch = []
        for length, count in _plan({length: len(q) for length, q in queues.items()}, oldest, self._limits):
            batch += [queues[length].popleft()[1] for _ in range(count)]
            if not queues[length]:
                del queues[length]
        if not queues:
            del self._groups[group]
        self._taken += len(batch)
        return batch


def _plan(waiting: dict[int, int], oldest: int, limits: BatchLimits) -> list[tuple[int, int]]:
    """(length, count) of a batch around the length `oldest`, longest first; `waiting` has the counts by length."""
    full = limits.full(oldest)
    if waiting[oldest] >= full:
        return [(oldest, full)]
    lengths = sorted(waiting, reverse=True)
    place = lengths.index(oldest)
    longer = _pieces(lengths[:place][::-1], waiting, limits)[::-1]
    shorter = _pieces(lengths[place + 1 :], waiting, limits)
    pieces = [*longer, *_pieces([oldest], waiting, limits), *shorter]
    return _cut_around(pieces, len(longer), limits)


def _pieces(lengths: list[int], waiting: dict[int, int], limits: BatchLimits) -> list[tuple[int, int]]:
    """(length, count) between which cuts are tried, for the lengths within reach.

    Full batches of one length are left out: they have no padding, whatever the cuts beside them are.
    """
    pieces = []
    reach = _REACH * limits.tokens
    for length in lengths:
        full = limits.full(length)
        rest, step = waiting[length] % full, max(1, full // _STEPS)
        pieces += [(length, min(step, rest - start)) for start in range(0, rest, step)]
        reach -= rest * length
        if reach <= 0:
            break
    return pieces


def _cut_around(pieces: list[tuple[int, int]], target: int, limits: BatchLimits) -> list[tuple[int, int]]:
    """Of the cheapest cut of `pieces` into batches, the one that holds the piece `target`."""
    least: list[float] = [0.0] + [math.inf] * len(pieces)  # cost of the pieces before this one
    began = [0] * (len(pieces) + 1)  # where the last batch before this piece begins
    for begin, (longest, _) in enumerate(pieces):
        full = limits.full(longest)
        rows = real = 0
        for end in range(begin + 1, len(pieces) + 1):
            length, count = pieces[end - 1]
            rows += count
            real += count * length
            padded = rows * longest
            wasteful = padded - real > limits.padding_share * padded
            if rows > full or (wasteful and padded > _SMALL * limits.tokens):
                break
            cost = least[begin] + padded + limits.batch_cost
            if cost < least[end]:
                least[end], began[end] = cost, begin
    end = len(pieces)
    while began[end] > target:
        end = began[end]
    return pieces[began[end] : end]
