"""What each stage did when: spans and counters of a running engine, written as a Perfetto trace.

    tracer = Tracer()
    with Engine(config, source, tracer) as engine:
        ...
    tracer.write(Path("trace.json"))  # open it in ui.perfetto.dev or chrome://tracing

The file is in Chrome's trace event format: complete events (`X`), counters (`C`) and names (`M`).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["NO_TRACE", "STAGES", "Count", "NoTracer", "OpenSpan", "Span", "Tracer"]

STAGES = ("tokenise", "load-adapter", "fetch", "device", "finish")
"""Names of the engine's spans, in the order in which work passes; a trace lists its threads in this order."""

_LIMIT = 200_000  # events of about 0.5 KB: 50,000 batches of four spans each
_Thread = tuple[int, str]  # identifier and name: the system gives identifiers out again


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one thread's time, in nanoseconds of the monotonic clock."""

    name: str
    thread: str
    begin_ns: int
    end_ns: int
    args: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Count:
    """What a counter said at one moment: its series by name, such as the length of each queue."""

    name: str
    at_ns: int
    values: Mapping[str, float]


class Tracer:
    """Records spans and counters of many threads in memory.

    A span costs a few microseconds, which is little beside a batch and much beside a row. When `limit`
    events are kept, the following ones are counted as dropped: a trace keeps its beginning.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._origin_ns = time.monotonic_ns()
        self._lock = threading.Lock()
        self._spans: list[tuple[_Thread, Span]] = []
        self._counts: list[Count] = []
        self._dropped = 0

    def span(self, name: str, /, **args: object) -> OpenSpan:
        """A block to be recorded when it ends; one that raises also gets the argument `error`.

        Usage: `with tracer.span("fetch", batch=7, rows=64): ...`
        """
        return OpenSpan(self, name, args)

    def record(self, name: str, begin_ns: int, end_ns: int, /, **args: object) -> None:
        """Record a span of the calling thread that was timed elsewhere, by `time.monotonic_ns`."""
        thread = threading.current_thread()
        span = Span(name, thread.name, begin_ns, end_ns, args)
        with self._lock:
            if self._take_room():
                self._spans.append(((threading.get_ident(), thread.name), span))

    def count(self, name: str, /, **values: float) -> None:
        """Record what a counter stands at: `tracer.count("queued batches", fetched=2)`."""
        count = Count(name, time.monotonic_ns(), values)
        with self._lock:
            if self._take_room():
                self._counts.append(count)

    @property
    def dropped(self) -> int:
        """Events that found no room."""
        return self._dropped

    def spans(self, *names: str) -> list[Span]:
        """Spans that have ended, those of `names` or all, in the order of their beginnings."""
        with self._lock:
            found = [span for _, span in self._spans if not names or span.name in names]
        return sorted(found, key=lambda span: span.begin_ns)

    def write(self, path: Path) -> None:
        """Write what was recorded so far as Chrome trace JSON; times are microseconds since the tracer was made."""
        with path.open("w", encoding="utf-8") as file:
            json.dump(self.to_chrome(), file, separators=(",", ":"), default=str)

    def to_chrome(self) -> dict[str, Any]:
        """As `write` writes it."""
        with self._lock:
            spans, counts, dropped = list(self._spans), list(self._counts), self._dropped
        numbers = _numbered(spans)
        return {
            "traceEvents": [
                *_names(numbers),
                *(self._complete(span, numbers[thread]) for thread, span in spans),
                *(self._counter(count) for count in counts),
            ],
            "displayTimeUnit": "ms",
            "otherData": {"dropped_events": dropped},
        }

    def _take_room(self) -> bool:
        """Whether one more event may be kept. The lock is held."""
        if len(self._spans) + len(self._counts) < self._limit:
            return True
        self._dropped += 1
        return False

    def _complete(self, span: Span, number: int) -> dict[str, Any]:
        return {
            "ph": "X",
            "name": span.name,
            "cat": "engine",
            "pid": os.getpid(),
            "tid": number,
            "ts": self._microseconds(span.begin_ns),
            "dur": (span.end_ns - span.begin_ns) / 1000,
            "args": dict(span.args),
        }

    def _counter(self, count: Count) -> dict[str, Any]:
        return {
            "ph": "C",
            "name": count.name,
            "cat": "engine",
            "pid": os.getpid(),
            "tid": 0,
            "ts": self._microseconds(count.at_ns),
            "args": dict(count.values),
        }

    def _microseconds(self, at_ns: int) -> float:
        return (at_ns - self._origin_ns) / 1000


class OpenSpan:
    """A span under way."""

    __slots__ = ("_args", "_begin_ns", "_name", "_tracer")

    def __init__(self, tracer: Tracer, name: str, args: dict[str, object]) -> None:
        self._tracer = tracer
        self._name = name
        self._args = args
        self._begin_ns = 0

    def note(self, /, **args: object) -> None:
        """Add what is known only now, before the block ends: `span.note(tokens=812)`."""
        self._args.update(args)

    def __enter__(self) -> Self:
        self._begin_ns = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._args["error"] = kind.__name__
        self._tracer.record(self._name, self._begin_ns, time.monotonic_ns(), **self._args)


class NoTracer(Tracer):
    """Records nothing and costs a call: `self._tracer = tracer or NO_TRACE` spares every stage an `if`."""

    def __init__(self) -> None:
        super().__init__(limit=0)
        self._ignored = _IgnoredSpan(self, "", {})

    def span(self, name: str, /, **args: object) -> OpenSpan:
        return self._ignored

    def record(self, name: str, begin_ns: int, end_ns: int, /, **args: object) -> None:
        pass

    def count(self, name: str, /, **values: float) -> None:
        pass


class _IgnoredSpan(OpenSpan):
    """One for all: it keeps nothing, so threads may share it."""

    __slots__ = ()

    def note(self, /, **args: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


NO_TRACE = NoTracer()


def _numbered(spans: Iterable[tuple[_Thread, Span]]) -> dict[_Thread, int]:
    """Threads from 1 in pipeline order: by the first stage that each of them worked for."""
    rank: dict[_Thread, int] = {}
    for thread, span in spans:
        own = STAGES.index(span.name) if span.name in STAGES else len(STAGES)
        rank[thread] = min(own, rank.get(thread, own))
    ordered = sorted(rank, key=lambda thread: (rank[thread], thread[1]))
    return {thread: number for number, thread in enumerate(ordered, start=1)}


def _names(numbers: Mapping[_Thread, int]) -> Iterator[dict[str, Any]]:
    """Metadata events: what process and threads are called, and in which order they are shown."""

    def named(kind: str, number: int, **args: object) -> dict[str, Any]:
        return {"ph": "M", "name": kind, "pid": os.getpid(), "tid": number, "ts": 0, "args": args}

    yield named("process_name", 0, name="HMI engine")
    for (_, name), number in numbers.items():
        yield named("thread_name", number, name=name)
        yield named("thread_sort_index", number, sort_index=number)
