"""Which sequences run in a step, and which pages they have. Plain counting: no tensor, no clock, no thread.

Sequences join and leave between steps. One that joins is prefilled, with what it had generated before it was preempted;
all that run are then decoded by one token in each step. A decode step follows each prefill, so newcomers do not hold up
those that run; and groups join in turn, so a large group does not hold up the others.

Where the pool has no page left for the next token, the sequence that joined last is preempted: it releases its pages
and is prefilled again later, before all that wait. So nothing fails for lack of pages, as long as the pool holds the
longest sequence alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hmi.models.layers import PAGE_TOKENS

T = TypeVar("T")


def pages_for(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS)


@dataclass(slots=True, eq=False)
class SequenceState(Generic[T]):
    payload: T  # the caller's
    tokens: int  # in the cache after its next step: all that it has, the newest one included
    group: Hashable = None  # with which it waits; groups take turns
    pages: list[int] = field(default_factory=list)  # in the order of its tokens; none while it waits
    number: int = -1  # in the order of first joining; -1 before


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    # Pages 1 to this number. Page 0 belongs to no sequence and is empty: it fills up the page tables of short ones.
    pages: int
    sequences: int  # that run at once
    prefill_tokens: int  # of one prefill, padding counted; a longer sequence is prefilled alone


@dataclass(frozen=True, slots=True, eq=False)
class Step(Generic[T]):
    members: Sequence[SequenceState[T]]
    is_prefill: bool  # run them from their beginning; else one more token of each


class GenerationScheduler(Generic[T]):
    """Not thread-safe."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self._limits = limits
        self._free = list(range(limits.pages, 0, -1))  # without page 0, see `SchedulerLimits`
        # Groups in the order of their turns, members in the order in which they came.
        self._waiting: OrderedDict[Hashable, OrderedDict[SequenceState[T], None]] = OrderedDict()
        self._preempted: OrderedDict[SequenceState[T], None] = OrderedDict()  # in the order in which they joined
        self._running: dict[SequenceState[T], None] = {}
        self._joined = 0
        self._must_decode = False  # sequences that ran before the last prefill
        self._allotted: list[int] = []
        self.preemptions = 0

    @property
    def is_empty(self) -> bool:
        return not (self._running or self._preempted or self._waiting)

    @property
    def free_pages(self) -> int:
        return len(self._free)

    def is_running(self, member: SequenceState[T]) -> bool:
        return member in self._running

    def add(self, member: SequenceState[T]) -> None:
        """Raises `ValueError` for a sequence that the pool could not hold alone, or that was added already."""
        if pages_for(member.tokens) > self._limits.pages:
            raise ValueError(f"{member.tokens} tokens need more than the pool's {self._limits.pages} pages")
        if member in self._running or member in self._preempted or member in self._waiting.get(member.group, ()):
            raise ValueError("the sequence was added already")
        member.number = -1
        self._waiting.setdefault(member.group, OrderedDict())[member] = None

    def leave(self, member: SequenceState[T]) -> None:
        """Remove a sequence; one that was not added is ignored."""
        self._running.pop(member, None)
        self._preempted.pop(member, None)
        group = self._waiting.get(member.group)
        if group is not None and member in group:
            del group[member]
            if not group:
                del self._waiting[member.group]
        self._free_pages_of(member)

    def next_step(self) -> Step[T] | None:
        """The next step; None where there is no sequence. Before the next call, every member of the step has one token
        more or has left."""
        if not (self._must_decode and self._running) and (joining := self._admit()):
            self._must_decode = bool(self._running)
            self._running |= dict.fromkeys(joining)
            return Step(joining, is_prefill=True)
        self._must_decode = False
        if not self._running:
            return None
        self._allot_next_pages()
        return Step(tuple(self._running), is_prefill=False)

    def drain_allotted(self) -> list[int]:
        """Pages that were allotted since the last call."""
        allotted, self._allotted = self._allotted, []
        return allotted

    def _admit(self) -> list[SequenceState[T]]:
        joining: list[SequenceState[T]] = []
        longest = 0
        while len(self._running) + len(joining) < self._limits.sequences:
            candidate = self._first_waiting()
            if candidate is None:
                break
            needed, longest = pages_for(candidate.tokens), max(longest, candidate.tokens)
            # Each one that runs needs a page soon; a candidate that takes the last ones would be preempted next.
            spare = len(self._running) + len(joining)
            if needed + spare > len(self._free) and spare:
                break
            if joining and longest * (len(joining) + 1) > self._limits.prefill_tokens:
                break
            self._end_waiting(candidate)
            candidate.pages = [self._allot_page() for _ in range(needed)]
            joining.append(candidate)
        return joining

    def _first_waiting(self) -> SequenceState[T] | None:
        """Preempted sequences come first; after them the first one of the group whose turn it is."""
        line = self._preempted or next(iter(self._waiting.values()), self._preempted)
        return next(iter(line), None)

    def _end_waiting(self, member: SequenceState[T]) -> None:
        if member in self._preempted:
            del self._preempted[member]
            return
        group = self._waiting.pop(member.group)
        del group[member]
        if group:
            self._waiting[member.group] = group  # the last now: it has had its turn
        member.number = self._joined
        self._joined += 1

    def _allot_next_pages(self) -> None:
        """Give each running sequence the page that its next token needs, in the order of joining."""
        for member in sorted(self._running, key=lambda each: each.number):
            while member in self._running and len(member.pages) < pages_for(member.tokens):
                if not self._free:
                    self._preempt(max(self._running, key=lambda each: each.number))
                    continue
                member.pages.append(self._allot_page())

    def _allot_page(self) -> int:
        page = self._free.pop()
        self._allotted.append(page)
        return page

    def _preempt(self, member: SequenceState[T]) -> None:
        del self._running[member]
        self._free_pages_of(member)
        # Those that were preempted before it joined after it.
        self._preempted[member] = None
        self._preempted.move_to_end(member, last=False)
        self.preemptions += 1

    def _free_pages_of(self, member: SequenceState[T]) -> None:
        self._free += reversed(member.pages)
        member.pages = []
