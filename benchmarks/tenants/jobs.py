"""One engine under the traffic of one case: jobs run as a worker submits them, and what each tier counted."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hmi.bench import OneBase
from hmi.engine import Engine, EngineConfig
from hmi.items import Item, ModelRef, Outcome, Task
from hmi.stats import TierStats

SUBMISSION = 64  # sequences
IN_FLIGHT = 16  # submissions: as many sequences as the four threads of a worker hold in shards of 256


@dataclass(frozen=True, slots=True)
class TierUse:
    """A tier over the jobs that are counted."""

    budget_bytes: int
    resident_bytes: int  # the most after any submission
    # Of one look-up for each batch and tenant in it; the host tier sees those that the device tier misses. None: none.
    hit_rate: float | None
    evictions: int


class JobEngine:
    """An engine with the tiers of one case, and what its jobs measured."""

    def __init__(self, config: EngineConfig, source: OneBase, texts: Sequence[str]) -> None:
        self.seq_s: list[float] = []  # of every job that is counted
        self.latencies: list[float] = []  # seconds from a submission to its last outcome, in these jobs
        self._source = source
        self._texts = texts
        self._engine = Engine(config, source)
        self._engine.load_base(source.name)
        self.count_from_now()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._engine.close(drain=error is None)

    def count_from_now(self) -> None:
        """Forget what was measured so far: it was warming up."""
        stats = self._engine.stats()
        self._before = stats.host, stats.on_device
        self._most_bytes = stats.host.bytes, stats.on_device.bytes
        self.seq_s.clear()
        self.latencies.clear()

    def run(self, tenants: NDArray[np.int64]) -> float:
        """Run the n-th text with the n-th tenant's model; return sequences per second. Raises the first error."""
        refs = {tenant: ModelRef(self._source.name, "general", str(tenant)) for tenant in set(tenants.tolist())}
        texts = self._texts[: len(tenants)]
        items = [
            Item(refs[tenant], Task.CLASSIFY, text=text) for tenant, text in zip(tenants.tolist(), texts, strict=True)
        ]
        begin = time.perf_counter()
        for future in self._submit(items):
            for outcome in future.result():
                if outcome.error is not None:
                    raise outcome.error
        self.seq_s.append(len(items) / (time.perf_counter() - begin))
        return self.seq_s[-1]

    def drop(self, tenants: Iterable[int]) -> None:
        """Leave nothing of these tenants in either tier."""
        for tenant in tenants:
            self._engine.drop_adapter(str(tenant))

    def host(self) -> TierUse:
        return _use(self._before[0], self._engine.stats().host, self._most_bytes[0])

    def on_device(self) -> TierUse:
        return _use(self._before[1], self._engine.stats().on_device, self._most_bytes[1])

    def latency_ms(self, percent: int) -> float:
        """A percentile of the latencies, in milliseconds."""
        return round(1e3 * float(np.percentile(self.latencies, percent)), 1)

    def _submit(self, items: list[Item]) -> list[Future[list[Outcome]]]:
        """Submissions of one size, with a fixed number of them not answered yet."""
        room = threading.BoundedSemaphore(IN_FLIGHT)
        futures = []
        for start in range(0, len(items), SUBMISSION):
            room.acquire()
            begin = time.perf_counter()
            futures.append(self._engine.submit(items[start : start + SUBMISSION]))
            futures[-1].add_done_callback(functools.partial(self._answered, begin, room))
        return futures

    def _answered(self, begin: float, room: threading.BoundedSemaphore, _: Future[list[Outcome]]) -> None:
        self.latencies.append(time.perf_counter() - begin)
        room.release()
        stats = self._engine.stats()
        host, device = self._most_bytes
        self._most_bytes = max(host, stats.host.bytes), max(device, stats.on_device.bytes)


def _use(before: TierStats, now: TierStats, most_bytes: int) -> TierUse:
    hits, misses = now.hits - before.hits, now.misses - before.misses
    return TierUse(
        budget_bytes=now.budget_bytes,
        resident_bytes=max(most_bytes, now.bytes),
        hit_rate=round(hits / (hits + misses), 4) if hits + misses else None,
        evictions=now.evictions - before.evictions,
    )
