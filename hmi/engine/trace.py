"""When each stage worked: spans and counters of a running engine, written as a Perfetto trace.

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STAGES = ("tokenise", "load-adapter", "fetch", "device", "finish")
"""Names of the engine's spans, in the order in which batches pass; a trace lists its threads in this order."""

_LIMIT = 200_000  # events of about 0.5 KB: 50,000 batches of four spans each
_Thread = tuple[int, str]  # identifier and name: the system reuses identifiers


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
    """The values of a counter's series at one moment, such as the length of each queue."""

    name: str
    at_ns: int
    values: Mapping[str, float]


class Tracer:
    """Records spans and counters of many threads in memory.

    A span costs a few microseconds, which is little beside a batch and much beside a row. Events beyond `limit` are
    dropped and counted.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._origin_ns = time.monotonic_ns()
        self._lock = threading.Lock()
        self._spans: list[tuple[_Thread, Span]] = []
        self._counts: list[Count] = []
        self.dropped = 0

    @contextmanager
    def span(self, name: str, /, **args: object) -> Iterator[None]:
        """Record the block when it ends; one that raises also gets the argument `error`.

        Usage: `with tracer.span("fetch", batch=7, rows=64): ...`
        """
        begin_ns = time.monotonic_ns()
        try:
            yield
        except BaseException as error:
            args["error"] = type(error).__name__
            raise
        finally:
            self.record(name, begin_ns, time.monotonic_ns(), **args)

    def record(self, name: str, begin_ns: int, end_ns: int, /, **args: object) -> None:
        """Record a span of the calling thread that was timed elsewhere, by `time.monotonic_ns`."""
        thread = threading.current_thread()
        span = Span(name, thread.name, begin_ns, end_ns, args)
        with self._lock:
            if self._has_room():
                self._spans.append(((threading.get_ident(), thread.name), span))

    def count(self, name: str, /, **values: float) -> None:
        """Record the values of a counter: `tracer.count("queued batches", fetched=2)`."""
        count = Count(name, time.monotonic_ns(), values)
        with self._lock:
            if self._has_room():
                self._counts.append(count)

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
        with self._lock:
            spans, counts, dropped = list(self._spans), list(self._counts), self.dropped
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

    def _has_room(self) -> bool:
        """Whether one more event may be kept; else count it as dropped. The lock is held."""
        if len(self._spans) + len(self._counts) < self._limit:
            return True
        self.dropped += 1
        return False

    def _complete(self, span: Span, number: int) -> dict[str, Any]:
        duration = (span.end_ns - span.begin_ns) / 1000
        return self._event("X", span.name, number, span.begin_ns, dur=duration, args=dict(span.args))

    def _counter(self, count: Count) -> dict[str, Any]:
        return self._event("C", count.name, 0, count.at_ns, args=dict(count.values))

    def _event(self, kind: str, name: str, number: int, at_ns: int, **more: object) -> dict[str, Any]:
        microseconds = (at_ns - self._origin_ns) / 1000
        event = {"ph": kind, "name": name, "cat": "engine", "pid": os.getpid(), "tid": number, "ts": microseconds}
        return event | more


class NoTracer(Tracer):
    """Records nothing."""

    def record(self, name: str, begin_ns: int, end_ns: int, /, **args: object) -> None:
        pass

    def count(self, name: str, /, **values: float) -> None:
        pass


NO_TRACE = NoTracer()


def _numbered(spans: Iterable[tuple[_Thread, Span]]) -> dict[_Thread, int]:
    """Threads from 1 in pipeline order: by the first stage that each of them worked in."""
    rank: dict[_Thread, int] = {}
    for thread, span in spans:
        own = STAGES.index(span.name) if span.name in STAGES else len(STAGES)
        rank[thread] = min(own, rank.get(thread, own))
    ordered = sorted(rank, key=lambda thread: (rank[thread], thread[1]))
    return {thread: number for number, thread in enumerate(ordered, start=1)}


def _names(numbers: Mapping[_Thread, int]) -> Iterator[dict[str, Any]]:
    """Metadata events: names of the process and the threads, and the order of the threads."""

    def named(kind: str, number: int, **args: object) -> dict[str, Any]:
        return {"ph": "M", "name": kind, "pid": os.getpid(), "tid": number, "ts": 0, "args": args}

    yield named("process_name", 0, name="HMI engine")
    for (_, name), number in numbers.items():
        yield named("thread_name", number, name=name)
        yield named("thread_sort_index", number, sort_index=number)
