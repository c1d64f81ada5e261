"""The stages as threads, and the bounded queues between them. It moves work and decides nothing.

    submit -> [tokenise] -> scheduler -> [fetch] -> queue -> [device] x threads -> queue -> [finish] -> futures

A full queue holds the stage before it back, so what is fetched ahead of the device stays bounded; of what waits before
that, ids are kept and no tensors. An error in a stage fails the sequences that it worked on, and only those.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import torch

from hmi.engine.config import EngineConfig, resolve_batch_tokens
from hmi.engine.decode import DecodeLoops
from hmi.engine.memory import Deferred
from hmi.engine.resources import EngineResources
from hmi.engine.scheduler import BatchLimits, Entry, Scheduler
from hmi.engine.stages import ComputedBatch, DeviceRunner, Fetcher, PlannedBatch, StagedBatch, finish, tokenise
from hmi.engine.supervision import Lifecycle
from hmi.engine.tasks import SequenceTask, Submission, to_hmi_error
from hmi.errors import Cancelled, HmiError
from hmi.items import Outcome, Task
from hmi.locks import SharedLock

R = TypeVar("R")

_log = logging.getLogger(__name__)

# Batches that may wait for room beside the adapters in use. Each capacity event has all of them try again, and an
# attempt may read adapters from disk: where so many wait, those behind them would hardly find room either.
_MOST_DEFERRED = 8


class Pipeline:
    """Runs submissions until it is closed, `device_threads` batches side by side. Thread-safe."""

    def __init__(
        self,
        resources: EngineResources,
        device: DeviceRunner,
        decode_loops: DecodeLoops,
        config: EngineConfig,
        device_threads: int,
    ) -> None:
        self._models = resources.models
        self._counters = resources.counters
        self._capacity = resources.capacity
        self._fetcher = Fetcher(resources)
        self._device = device
        self._decode_loops = decode_loops
        batch_tokens = resolve_batch_tokens(config.batch_tokens, resources.device)
        self._scheduler: Scheduler[SequenceTask] = Scheduler(
            BatchLimits(batch_tokens, config.batch_rows, config.padding_share, config.batch_cost)
        )
        self._lifecycle = Lifecycle()
        self._tokenised = False  # no more sequences will come to the scheduler
        self._unfinished = 0  # submissions without all their outcomes
        self._deferred: Deferred[list[SequenceTask]] = Deferred(resources.capacity)  # tasks of one base model each
        self._numbers = itertools.count(1)
        # Stages that must not overlap with the device's, and their lock; none but for measurements.
        self._exclusive = {stage for stage in ("tokenise", "fetch", "finish") if not getattr(config.overlap, stage)}
        self._overlap_lock = SharedLock()
        self._device_threads = self._computing = device_threads  # and those that have not ended
        self._submissions: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        length = max(config.queue_batches, device_threads)
        self._fetched: queue.Queue[StagedBatch | None] = queue.Queue(length)
        self._computed: queue.Queue[tuple[StagedBatch, list[ComputedBatch]] | None] = queue.Queue(length)
        resources.capacity.subscribe(self._lifecycle.notify)
        self._start()

    def _start(self) -> None:
        stages: dict[str, Callable[[], None]] = {
            "tokenise": self._tokenise,
            "fetch": self._fetch,
            "finish": self._finish,
        }
        for number in range(self._device_threads):
            stages["device" if self._device_threads == 1 else f"device-{number}"] = self._compute
        threads = torch.get_num_threads()
        self._prepared = threading.Barrier(self._device_threads + 2)  # threads that set their own torch threads
        self._threads = [threading.Thread(target=run, name=f"hmi-{name}", daemon=True) for name, run in stages.items()]
        for thread in self._threads:
            thread.start()
        self._prepared.wait()
        torch.set_num_threads(threads)  # for threads that start later; those that run keep their own number

    def submit(self, submission: Submission) -> None:
        """Raises `Cancelled` after `close`."""
        with self._lifecycle.changed:
            if self._lifecycle.closed:
                raise Cancelled("the engine is closed")
            self._unfinished += 1
            self._submissions.put(submission)
        submission.future.add_done_callback(self._count_finished)

    def busy(self) -> bool:
        """Whether any submission lacks outcomes."""
        return self._unfinished > 0

    def close(self, *, drain: bool) -> None:
        """Stop all threads; with `drain` after everything that was submitted, else what waits is cancelled."""
        with self._lifecycle.changed:
            if not self._lifecycle.closed:
                self._submissions.put(None)
            self._lifecycle.close(drain=drain)
        for thread in self._threads:
            thread.join()
        self._decode_loops.close(drain=drain)

    def _count_finished(self, future: Future[list[Outcome]]) -> None:
        with self._lifecycle.changed:
            self._unfinished -= 1

    def _tokenise(self) -> None:
        while (submission := self._submissions.get()) is not None:
            with self._working("tokenise", rows=len(submission.items)):
                try:
                    if reason := self._lifecycle.cancellation(submission):
                        raise reason
                    for tasks in tokenise(submission, self._models):
                        self._schedule(tasks)
                except BaseException as error:  # noqa: BLE001 - a thread that ends would leave all waiting
                    if not isinstance(error, HmiError):
                        _log.exception("tokenising failed")
                    for index in range(len(submission.items)):
                        submission.fail(index, to_hmi_error(error))
        with self._lifecycle.changed:
            self._tokenised = True
            self._lifecycle.notify()

    def _schedule(self, tasks: list[SequenceTask]) -> None:
        if generated := [task for task in tasks if task.item.task is Task.GENERATE]:
            self._decode_loops.add(generated)
        batched = [task for task in tasks if task.item.task is not Task.GENERATE]
        with self._lifecycle.changed:
            self._scheduler.add([Entry(len(task.ids), task.base.digest, task) for task in batched])
            self._lifecycle.notify()

    def _fetch(self) -> None:
        # Its torch operations are copies. With threads of their own they would only take the device's cores.
        torch.set_num_threads(1)
        self._prepared.wait()
        while (groups := self._next_to_fetch()) is not None:
            for tasks in groups:
                self._fetch_batches(self._drop_cancelled(tasks))
        for _ in range(self._device_threads):
            self._fetched.put(None)

    def _next_to_fetch(self) -> list[list[SequenceTask]] | None:
        """Deferred tasks that may fit now, before all others; None when no more will come."""
        with self._lifecycle.changed:
            self._lifecycle.changed.wait_for(
                lambda: self._can_schedule() or self._can_retry() or (self._tokenised and not self._deferred)
            )
            if self._can_retry():
                return self._deferred.take()
            if len(self._scheduler):
                return [[entry.payload for entry in self._scheduler.take_batch()]]
            return None

    def _can_schedule(self) -> bool:
        return len(self._scheduler) > 0 and len(self._deferred) < _MOST_DEFERRED

    def _can_retry(self) -> bool:
        return len(self._deferred) > 0 and (self._lifecycle.abandoned or self._deferred.may_fit)

    def _drop_cancelled(self, tasks: list[SequenceTask]) -> list[SequenceTask]:
        kept = []
        for task in tasks:
            if error := self._lifecycle.cancellation(task.submission):
                task.fail(error)
            else:
                kept.append(task)
        return kept

    def _fetch_batches(self, tasks: list[SequenceTask]) -> None:
        """Fetch in one batch, or in as many as memory for adapters allows. Tasks that must wait until adapters are
        released are deferred, so that others, whose adapters are there, need not wait with them."""
        while tasks:
            tried = self._capacity.count
            planned = PlannedBatch(next(self._numbers), tasks[0].base, tuple(tasks))
            fetched = self._guarded("fetch", planned, partial(self._fetcher.fetch, planned))
            if fetched is None:
                return
            staged, tasks = fetched
            if staged is not None:
                self._fetched.put(staged)
            elif tasks:
                self._deferred.add(tasks, tried)
                return

    def _compute(self) -> None:
        self._device.prepare_thread()
        self._prepared.wait()
        while (staged := self._fetched.get()) is not None:
            self._counters.tracer.count("batches", fetched=self._fetched.qsize(), computed=self._computed.qsize())
            parts = self._guarded("device", staged, partial(self._device.run, staged)) or []
            if parts:
                self._counters.add(staged)
            self._computed.put((staged, parts))
        with self._lifecycle.changed:
            self._computing -= 1
            last = not self._computing
        if last:
            self._computed.put(None)

    def _finish(self) -> None:
        while (computed := self._computed.get()) is not None:
            staged, parts = computed
            for part in parts:
                self._guarded("finish", part.staged, partial(finish, part))
            self._fetcher.release(staged)

    @contextlib.contextmanager
    def _working(self, stage: str, **args: object) -> Iterator[None]:
        with self._overlapping(stage), self._counters.working(stage, **args):
            yield

    def _overlapping(self, stage: str) -> contextlib.AbstractContextManager[None]:
        if not self._exclusive:
            return contextlib.nullcontext()
        if stage in self._exclusive:
            return self._overlap_lock.exclusive()
        return self._overlap_lock.shared() if stage == "device" else contextlib.nullcontext()

    def _guarded(self, stage: str, batch: PlannedBatch, run: Callable[[], R]) -> R | None:
        """Run a stage for one batch. Any error fails the batch's tasks; None stands for one."""
        with self._working(stage, batch=batch.number, rows=len(batch.tasks), tokens=batch.tokens):
            try:
                return run()
            except BaseException as error:  # noqa: BLE001 - a thread that ends would leave all waiting
                _log.exception("%s failed for a batch of %d sequences", stage, len(batch.tasks))
                for task in batch.tasks:
                    task.fail(to_hmi_error(error))
                return None
