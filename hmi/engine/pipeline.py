"""The stages as threads and the bounded queues between them. It moves work and decides nothing.

    submit -> [tokenise] -> scheduler -> [fetch] -> queue -> [device] x device_threads -> queue -> [finish] -> futures

A full queue holds the stage before it back, so what is fetched ahead of the device stays bounded; of what
waits before that, ids are kept and no tensors. Whatever a stage raises fails the sequences that it was working
on, and only those.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import torch

from hmi.engine.config import Overlap
from hmi.engine.decode import DecodeLoops
from hmi.engine.device import DeviceRunner
from hmi.engine.fetch import Fetcher
from hmi.engine.finish import finish
from hmi.engine.hosted import LoadedModels
from hmi.engine.releases import CapacityEvents
from hmi.engine.scheduler import BatchLimits, Entry, Scheduler
from hmi.engine.stats import Counters
from hmi.engine.tokenise import tokenise
from hmi.engine.work import Batch, SequenceTask, Submission, to_hmi_error
from hmi.errors import Cancelled, HmiError
from hmi.items import Outcome, Task
from hmi.locks import SharedLock

__all__ = ["Pipeline"]

R = TypeVar("R")

_log = logging.getLogger(__name__)

# Batches that wait for room beside the adapters in use. Each release has all of them try again, and a try may read
# adapters from disk: where so many wait, those behind them would hardly fare better.
_MOST_PARKED = 8


class Pipeline:
    """Runs submissions until it is closed. Thread-safe."""

    def __init__(
        self,
        bases: LoadedModels,
        fetcher: Fetcher,
        device: DeviceRunner,
        counters: Counters,
        limits: BatchLimits,
        device_threads: int,
        queue_batches: int,
        overlap: Overlap,
        generators: DecodeLoops,
        releases: CapacityEvents,
    ) -> None:
        self._bases = bases
        self._fetcher = fetcher
        self._device = device
        self._generators = generators
        self._counters = counters
        self._scheduler: Scheduler[SequenceTask] = Scheduler(limits)
        self._wake = threading.Condition()
        self._tokenised = False  # no more sequences will come to the scheduler
        self._closed = False
        self._abandoned = False  # closed without draining: what has not been fetched is not run any more
        self._unfinished = 0  # submissions that somebody waits for
        # Works of one base model whose adapters find no room beside those in use, with the releases before they tried.
        self._parked: list[tuple[int, list[SequenceTask]]] = []
        self._releases = releases
        releases.subscribe(self._look_again)
        self._computing = device_threads  # device threads that have not ended
        self._numbers = itertools.count(1)
        # Stages that shall not overlap with the device's, and their lock; empty but for measurements.
        self._alone = {stage for stage in ("tokenise", "fetch", "finish") if not getattr(overlap, stage)}
        self._solitude = SharedLock()
        self._device_threads = device_threads
        threads = torch.get_num_threads()
        self._prepared = threading.Barrier(
            device_threads + 2
        )  # all threads that settle their own number of torch's threads
        self._submissions: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._fetched: queue.Queue[Batch | None] = queue.Queue(max(queue_batches, device_threads))
        self._computed: queue.Queue[tuple[Batch, list[Batch]] | None] = queue.Queue(max(queue_batches, device_threads))
        stages: dict[str, Callable[[], None]] = {
            "tokenise": self._tokenise,
            "fetch": self._fetch,
            "finish": self._finish,
            **{
                "device" if device_threads == 1 else f"device-{number}": self._compute
                for number in range(device_threads)
            },
        }
        self._threads = [threading.Thread(target=run, name=f"hmi-{name}", daemon=True) for name, run in stages.items()]
        for thread in self._threads:
            thread.start()
        self._prepared.wait()
        torch.set_num_threads(threads)  # for threads that are yet to come; those that run keep their own number

    def submit(self, submission: Submission) -> None:
        """Raises `Cancelled` after `close`."""
        with self._wake:
            if self._closed:
                raise Cancelled("the engine is closed")
            self._unfinished += 1
            self._submissions.put(submission)
        submission.future.add_done_callback(self._count_finished)

    def busy(self) -> bool:
        """Whether any submission waits for an outcome."""
        return self._unfinished > 0

    def close(self, *, drain: bool) -> None:
        """Stop all threads; with `drain` after everything that was submitted, else what waits is cancelled."""
        with self._wake:
            if not self._closed:
                self._closed = True
                self._submissions.put(None)
            self._abandoned |= not drain
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()
        self._generators.close(drain=drain)

    def _count_finished(self, future: Future[list[Outcome]]) -> None:
        with self._wake:
            self._unfinished -= 1

    def _tokenise(self) -> None:
        while (submission := self._submissions.get()) is not None:
            with self._working("tokenise", rows=len(submission.items)):
                try:
                    if self._abandoned:
                        raise _closed_before()
                    for works in tokenise(submission, self._bases):
                        self._offer(works)
                except BaseException as error:  # noqa: BLE001 - a thread that ends would leave all waiting
                    if not isinstance(error, HmiError):
                        _log.exception("tokenising failed")
                    for index in range(len(submission.items)):
                        submission.settle(index, Outcome(result=None, error=to_hmi_error(error), tokens=0))
        with self._wake:
            self._tokenised = True
            self._wake.notify_all()

    def _offer(self, works: list[SequenceTask]) -> None:
        continued = [work for work in works if work.item.task is Task.GENERATE]
        if continued:
            self._generators.add(continued)
        whole = [work for work in works if work.item.task is not Task.GENERATE]
        with self._wake:
            self._scheduler.add([Entry(len(work.ids), work.base.digest, work) for work in whole])
            self._wake.notify_all()

    def _fetch(self) -> None:
        # What it does in torch are copies. With threads of their own they would only take the device's cores in turns.
        torch.set_num_threads(1)
        self._prepared.wait()
        while (groups := self._next_to_fetch()) is not None:
            for works in groups:
                self._fetch_batch(self._still_wanted(works))
        for _ in range(self._device_threads):
            self._fetched.put(None)

    def _next_to_fetch(self) -> list[list[SequenceTask]] | None:
        """Those that were parked and may have room now, before all others; None when no more will come."""
        with self._wake:
            self._wake.wait_for(
                lambda: self._may_take() or self._may_fit_now() or (self._tokenised and not self._parked)
            )
            if self._may_fit_now():
                groups, self._parked = [works for _, works in self._parked], []
                return groups
            if len(self._scheduler):
                return [[entry.payload for entry in self._scheduler.take_batch()]]
            return None

    def _may_take(self) -> bool:
        return len(self._scheduler) > 0 and len(self._parked) < _MOST_PARKED

    def _may_fit_now(self) -> bool:
        return any(self._abandoned or tried != self._releases.count for tried, _ in self._parked)

    def _look_again(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _still_wanted(self, works: list[SequenceTask]) -> list[SequenceTask]:
        """Those that somebody waits for; the others are settled without being run."""
        wanted = []
        for work in works:
            if self._abandoned:
                work.fail(_closed_before())
            elif work.submission.future.cancelled():
                work.fail(Cancelled("nobody waits for this any more"))
            else:
                wanted.append(work)
        return wanted

    def _fetch_batch(self, works: list[SequenceTask]) -> None:
        """Fetch in one piece, or in as many as memory for adapters allows. Those that have to wait until somebody gives
        theirs back are parked: others, whose adapters are there, need not wait with them."""
        while works:
            released = self._releases.count
            batch = Batch(works[0].base, works, next(self._numbers))
            deferred = self._guarded("fetch", batch, self._fetcher.fetch)
            if deferred is not None and batch.works:
                self._fetched.put(batch)
                works = deferred
                continue
            self._fetcher.release(batch)  # what rows that failed had taken: it may be all that the others need
            if deferred:
                self._parked.append((released, deferred))
            return

    def _compute(self) -> None:
        self._device.prepare_thread()
        self._prepared.wait()
        while (batch := self._fetched.get()) is not None:
            self._counters.tracer.count("batches", fetched=self._fetched.qsize(), computed=self._computed.qsize())
            parts = self._guarded("device", batch, self._device.run)
            if parts:
                self._counters.add(batch)
            self._computed.put((batch, parts or []))
        with self._wake:
            self._computing -= 1
            last = not self._computing
        if last:
            self._computed.put(None)

    def _finish(self) -> None:
        while (computed := self._computed.get()) is not None:
            batch, parts = computed
            for part in parts:
                self._guarded("finish", part, finish)
            self._fetcher.release(batch)

    @contextlib.contextmanager
    def _working(self, stage: str, **args: object) -> Iterator[None]:
        with self._overlapping(stage), self._counters.working(stage, **args):
            yield

    def _overlapping(self, stage: str) -> contextlib.AbstractContextManager[None]:
        if not self._alone:
            return contextlib.nullcontext()
        if stage in self._alone:
            return self._solitude.exclusive()
        return self._solitude.shared() if stage == "device" else contextlib.nullcontext()

    def _guarded(self, stage: str, batch: Batch, run: Callable[[Batch], R]) -> R | None:
        """Run a stage for one batch. A failure of any kind is the batch's alone; None stands for one."""
        works = list(batch.works)
        with self._working(stage, batch=batch.number, rows=len(works), tokens=batch.tokens):
            try:
                return run(batch)
            except BaseException as error:  # noqa: BLE001 - a thread that ends would leave all waiting
                _log.exception("%s failed for a batch of %d sequences", stage, len(works))
                for work in works:
                    work.fail(to_hmi_error(error))
                return None


def _closed_before() -> Cancelled:
    return Cancelled("the engine was closed before this ran")
