"""Which sequences run in a step, and which pages they have. Plain counting: no tensor, no clock, no thread.

Sequences join and leave between steps. One that joins is read from its beginning, with what it had generated before it
was put back; all that run are then continued by one token in each step. Those that run are continued after each reading
of others, so no stream of those that come holds them up; and groups join in turn, so no crowd of one group's does.

Where the pool has no page left for the next token, the sequence that joined last gives its own back and is read again
later, before all that wait: nothing fails for want of room, as long as the pool holds the longest sequence alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hmi.models.layers import PAGE_TOKENS

__all__ = ["Decode", "GenerationScheduler", "Prefill", "SchedulerLimits", "SequenceState", "pages_for"]

T = TypeVar("T")


def pages_for(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS)


@dataclass(slots=True, eq=False)
class SequenceState(Generic[T]):
    """One sequence.

    Attributes:
        what: Whose it is; not looked at here.
        tokens: That are to be in the cache after its next step: all that it has, the newest one included.
        group: With which it waits; groups take turns.
        pages: Its own, in the order of its tokens; none while it waits.
        number: In the order of first joining; -1 before.
    """

    what: T
    tokens: int
    group: Hashable = None
    pages: list[int] = field(default_factory=list)
    number: int = -1


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Attributes:
    pages: Of the pool that sequences may have: 1 to this number. Page 0 is nobody's and empty, for what is read where
        a sequence has fewer pages than its neighbours.
    sequences: That run at once.
    prefill_tokens: Read in one step, padding counted; a longer sequence is read alone.
    """

    pages: int
    sequences: int
    prefill_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Prefill(Generic[T]):
    """Read these from their beginning."""

    members: Sequence[SequenceState[T]]


@dataclass(frozen=True, slots=True, eq=False)
class Decode(Generic[T]):
    """Continue these by a token."""

    members: Sequence[SequenceState[T]]


class GenerationScheduler(Generic[T]):
    def __init__(self, limits: SchedulerLimits) -> None:
        self._limits = limits
        self._free = list(range(limits.pages, 0, -1))  # 0 is nobody's, see `SchedulerLimits`
        # In the order of their turns, and each in the order in which its members came.
        self._waiting: OrderedDict[Hashable, OrderedDict[SequenceState[T], None]] = OrderedDict()
        self._put_back: OrderedDict[SequenceState[T], None] = OrderedDict()  # who joined first, first
        self._running: dict[SequenceState[T], None] = {}
        self._joined = 0
        self._owes_token = False  # to those who ran before others were read
        self._allotted: list[int] = []
        self.preemptions = 0

    def add(self, member: SequenceState[T]) -> None:
        """Raises `ValueError` for a sequence that the pool could not hold alone, or that is here already."""
        if pages_for(member.tokens) > self._limits.pages:
            raise ValueError(f"{member.tokens} tokens need more than the pool's {self._limits.pages} pages")
        if member in self._running or member in self._put_back or member in self._waiting.get(member.group, ()):
            raise ValueError("the sequence is here already")
        member.number = -1
        self._waiting.setdefault(member.group, OrderedDict())[member] = None

    def leave(self, member: SequenceState[T]) -> None:
        """It has ended, or nobody wants it any more; one that is not here is none the worse for it."""
        self._running.pop(member, None)
        self._put_back.pop(member, None)
        group = self._waiting.get(member.group)
        if group is not None and member in group:
            del group[member]
            if not group:
                del self._waiting[member.group]
        self._give_back(member)

    def next_step(self) -> Prefill[T] | Decode[T] | None:
        """What to run now; None where nobody is here. Before the next call, every member of a step has one token more
        or has left."""
        if not (self._owes_token and self._running) and (joining := self._admit()):
            self._owes_token = bool(self._running)
            self._running |= dict.fromkeys(joining)
            return Prefill(joining)
        self._owes_token = False
        if not self._running:
            return None
        self._make_room()
        return Decode(tuple(self._running))

    def drain_allotted(self) -> list[int]:
        """Pages that were given to somebody since this was last asked."""
        allotted, self._allotted = self._allotted, []
        return allotted

    def runs(self, member: SequenceState[T]) -> bool:
        return member in self._running

    @property
    def is_empty(self) -> bool:
        return not (self._running or self._put_back or self._waiting)

    @property
    def free_pages(self) -> int:
        return len(self._free)

    def _admit(self) -> list[SequenceState[T]]:
        joining: list[SequenceState[T]] = []
        longest = 0
        while len(self._running) + len(joining) < self._limits.sequences:
            candidate = self._first_waiting()
            if candidate is None:
                break
            wanted, longest = pages_for(candidate.tokens), max(longest, candidate.tokens)
            # Those that run need a page each before long; who joins at their cost would be the next to be put back.
            spare = len(self._running) + len(joining)
            if wanted + spare > len(self._free) and spare:
                break
            if joining and longest * (len(joining) + 1) > self._limits.prefill_tokens:
                break
            self._end_waiting(candidate)
            candidate.pages = [self._take_page() for _ in range(wanted)]
            joining.append(candidate)
        return joining

    def _first_waiting(self) -> SequenceState[T] | None:
        """Those that were put back come first; after them the first of the group whose turn it is."""
        line = self._put_back or next(iter(self._waiting.values()), self._put_back)
        return next(iter(line), None)

    def _end_waiting(self, member: SequenceState[T]) -> None:
        if member in self._put_back:
            del self._put_back[member]
            return
        group = self._waiting.pop(member.group)
        del group[member]
        if group:
            self._waiting[member.group] = group  # the last now: it has had its turn
        member.number = self._joined
        self._joined += 1

    def _make_room(self) -> None:
        """Give everybody who runs the page that the next token needs, the first who joined first."""
        for member in sorted(self._running, key=lambda each: each.number):
            while member in self._running and len(member.pages) < pages_for(member.tokens):
                if not self._free:
                    self._preempt(max(self._running, key=lambda each: each.number))
                    continue
                member.pages.append(self._take_page())

    def _take_page(self) -> int:
        page = self._free.pop()
        self._allotted.append(page)
        return page

    def _preempt(self, member: SequenceState[T]) -> None:
        del self._running[member]
        self._give_back(member)
        # Those that were put back before it joined after it.
        self._put_back[member] = None
        self._put_back.move_to_end(member, last=False)
        self.preemptions += 1

    def _give_back(self, member: SequenceState[T]) -> None:
        self._free += reversed(member.pages)
        member.pages = []
