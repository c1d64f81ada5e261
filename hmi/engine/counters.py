"""Counts of what an engine does, for status pages, logs and benchmarks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hmi.engine.trace import NO_TRACE, Tracer

if TYPE_CHECKING:
    from hmi.engine.stages import StagedBatch


class Counters:
    """Adds up what the stages do. Thread-safe."""

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
        """Seconds by stage."""
        with self._lock:
            return dict(self._busy)

    def add(self, batch: StagedBatch) -> None:
        """Count a batch that the device has run."""
        self._add(batch, len(batch.tasks), batch.tokens)

    def add_decode(self, batch: StagedBatch) -> None:
        """Count a step that gave each sequence of the batch one token."""
        self._add(batch, 0, len(batch.tasks))

    def _add(self, batch: StagedBatch, sequences: int, tokens: int) -> None:
        with self._lock:
            self.batches += 1
            self.sequences += sequences
            self.tokens += tokens
            self.padded_tokens += batch.ids.numel()
            self.computed_windows += len(batch.rows.windows) if batch.rows is not None else 0
