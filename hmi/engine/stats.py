"""What an engine says of itself: plain numbers for status pages, logs and benchmarks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hmi.engine.trace import NO_TRACE, Tracer

if TYPE_CHECKING:
    from hmi.engine.work import Batch

__all__ = [
    "Counters",
]


class Counters:
    """Adds up what the stages do, from several threads."""

    def __init__(self, tracer: Tracer = NO_TRACE) -> None:
        self.tracer = tracer
        self.started = time.monotonic()
        self.batches = 0
        self.sequences = 0
        self.tokens = 0
        self.padded_tokens = 0
        self.computed_windows = 0
        self._busy: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def working(self, stage: str, **args: object) -> Iterator[None]:
        """Count the block's time as this stage's, and record it as a span with `args`."""
        begin = time.monotonic()
        try:
            with self.tracer.span(stage, **args):
                yield
        finally:
            with self._lock:
                self._busy[stage] = self._busy.get(stage, 0.0) + time.monotonic() - begin

    def busy(self) -> dict[str, float]:
        with self._lock:
            return dict(self._busy)

    def add_step(self, batch: Batch) -> None:
        """Count a step in which each of the batch's texts went on by a token."""
        with self._lock:
            self.batches += 1
            self.tokens += len(batch.works)
            self.padded_tokens += len(batch.works)
            self.computed_windows += len(batch.windows) if batch.windows is not None else 0

    def add(self, batch: Batch) -> None:
        """Count a batch that the device has run."""
        with self._lock:
            self.batches += 1
            self.sequences += len(batch.works)
            self.tokens += batch.tokens
            self.padded_tokens += batch.ids.numel() if batch.ids is not None else 0
            self.computed_windows += len(batch.windows) if batch.windows is not None else 0
