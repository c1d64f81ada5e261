"""The thread that generates: it schedules a step, runs it and takes the next token of each sequence.

Sequences join and leave between steps. Each runs with its own adapter, in prefill and decode alike. A step that
fails is run in halves, down to the sequence that fails.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from hmi.adapters.maths import order_key
from hmi.engine.config import EngineConfig, resolve_batch_tokens
from hmi.engine.decode.cache import pool_size
from hmi.engine.decode.runner import GenerationRunner, Member
from hmi.engine.decode.sampling import best_tokens, choose_tokens
from hmi.engine.decode.scheduler import GenerationScheduler, SchedulerLimits, SequenceState, pages_for
from hmi.engine.decode.sequence import GeneratingSequence
from hmi.engine.memory import Deferred, LoadedModel
from hmi.engine.resources import EngineResources
from hmi.engine.stages import DeviceRunner
from hmi.engine.supervision import Lifecycle, run_isolated
from hmi.engine.tasks import SequenceTask, Submission, to_hmi_error
from hmi.engine.vocabulary import read_token_bytes
from hmi.errors import ContextTooLong, HmiError, InvalidInput, Overloaded
from hmi.items import GenerationParams, Outcome
from hmi.models.layers import PAGE_TOKENS

_log = logging.getLogger(__name__)


class DecodeLoop:
    """Generates the texts of one base model, on a thread of its own. Raises `InvalidInput` for an encoder."""

    def __init__(
        self, base: LoadedModel, resources: EngineResources, device: DeviceRunner, limits: SchedulerLimits
    ) -> None:
        self._base = base
        self._limits = limits
        self._token_bytes = read_token_bytes(base.tokenizer)
        self._device = device
        self._runner = GenerationRunner(base, resources, device, limits.pages)
        self._scheduler: GenerationScheduler[GeneratingSequence] = GenerationScheduler(limits)
        self._members: dict[Submission, dict[Member, None]] = {}
        self._arrived: list[SequenceTask] = []
        self._ended: list[Submission] = []  # cancelled, or with all outcomes
        self._capacity = resources.capacity
        self._deferred: Deferred[Member] = Deferred(resources.capacity)
        self._lifecycle = Lifecycle()
        self._capacity.subscribe(self._lifecycle.notify)
        self._thread = threading.Thread(target=self._run, name="hmi-generate", daemon=True)
        self._thread.start()

    @property
    def preemptions(self) -> int:
        """How often a sequence was preempted for lack of pages."""
        return self._scheduler.preemptions

    def add(self, tasks: Sequence[SequenceTask]) -> None:
        """Generate these; each is settled once."""
        with self._lifecycle.changed:
            self._arrived += tasks
            self._lifecycle.notify()

    def close(self, *, drain: bool) -> None:
        """Stop; with `drain` after everything that was added."""
        self._lifecycle.close(drain=drain)
        self._thread.join()
        self._capacity.unsubscribe(self._lifecycle.notify)

    def _run(self) -> None:
        self._device.prepare_thread()
        while (arrived := self._wait()) is not None:
            try:
                for task in arrived:
                    self._admit(task)
                self._drop_cancelled()
                self._retry_deferred()
                self._step()
            except BaseException as error:  # noqa: BLE001 - a thread that ends would leave all waiting
                _log.exception("a step of generation failed, and not for its sequences")
                self._reset(arrived, error)

    def _wait(self) -> list[SequenceTask] | None:
        """Wait for something to do. Returns what has arrived; None when the loop is closed and has nothing left."""
        with self._lifecycle.changed:
            self._lifecycle.changed.wait_for(self._has_work)
            arrived, self._arrived = self._arrived, []
            if not arrived and self._scheduler.is_empty and not self._deferred and self._lifecycle.closed:
                return None
            return arrived

    def _has_work(self) -> bool:
        stops = self._lifecycle.closed and (self._lifecycle.abandoned or not self._deferred)
        return bool(self._arrived or self._ended) or not self._scheduler.is_empty or self._deferred.may_fit or stops

    def _step(self) -> None:
        step = self._scheduler.next_step()
        if step is None:
            self._runner.forget()
            return
        run = self._prefill if step.is_prefill else self._decode
        run_isolated(step.members, run, self._halve, self._fail_running)

    @torch.inference_mode()
    def _prefill(self, members: Sequence[Member]) -> None:
        tried = self._capacity.count
        batch, by_task, deferred = self._runner.stage(members)
        for member in deferred:
            self._scheduler.leave(member)
            self._deferred.add(member, tried)
        staged = [] if batch is None else [by_task.pop(task) for task in batch.tasks]
        for member in by_task.values():  # their tasks failed
            self._leave(member)
        if batch is None:
            return
        try:
            self._runner.pin(staged, batch)
            logits = self._runner.prefill(staged, batch, self._scheduler.drain_allotted())
            self._take_tokens(staged, logits)
        finally:
            self._runner.release(batch)

    @torch.inference_mode()
    def _decode(self, members: Sequence[Member]) -> None:
        members = sorted(members, key=lambda each: order_key(each.payload.resident))
        logits = self._runner.decode(members, self._scheduler.drain_allotted())
        self._take_tokens(members, logits)

    def _take_tokens(self, members: Sequence[Member], logits: Tensor) -> None:
        """Choose each sequence's next token by its logits `[B, vocabulary]`, and settle those that end with it."""
        if not bool(torch.isfinite(logits).all()):
            raise InvalidInput("the model gave numbers that are not finite; its adapter may not fit the dtype")
        sequences = [each.payload for each in members]
        chosen = choose_tokens(
            logits, [each.params.sampling for each in sequences], [len(each.generated) for each in sequences]
        )
        ids, logprobs = chosen.ids.cpu().numpy(), chosen.logprobs.cpu().numpy()  # [B]
        reporting = [row for row, each in enumerate(sequences) if each.logprobs is not None]
        count = max((sequences[row].params.logprobs or 0 for row in reporting), default=0)
        best_ids, best_logprobs = best_tokens(logits[reporting], count)  # [reporting, count]
        place_of = {row: place for place, row in enumerate(reporting)}
        for row, member in enumerate(members):
            sequence = sequences[row]
            try:
                if sequence.logprobs is not None and sequence.params.max_tokens:
                    one, best = slice(row, row + 1), slice(place_of[row], place_of[row] + 1)
                    sequence.logprobs.add(ids[one], logprobs[one], best_ids[best], best_logprobs[best])
                if not sequence.params.max_tokens or sequence.append(int(ids[row])):
                    self._settle(member)
                else:
                    member.tokens = sequence.length
            except BaseException as error:  # noqa: BLE001 - a step with tokens taken cannot be run again
                self._fail(member, error)

    def _admit(self, task: SequenceTask) -> None:
        params = task.item.params or GenerationParams()
        context = self._base.spec.max_positions
        # A text that asks for more than the pool holds ends there, as if it had reached its max_tokens.
        max_length = min(len(task.ids) + params.max_tokens, context, self._limits.pages * PAGE_TOKENS)
        try:
            if params.max_tokens and len(task.ids) >= context:
                raise ContextTooLong(
                    f"the prompt has {len(task.ids)} tokens, and the model takes {context} with what is generated",
                    param="prompt",
                )
            sequence = GeneratingSequence(task, params, max_length, self._token_bytes)
            member = SequenceState(sequence, len(task.ids), group=task.submission)
            least = len(task.ids) + (1 if params.max_tokens else 0)
            if pages_for(least) > self._limits.pages:
                raise Overloaded(f"a text of {least} tokens needs more memory for keys and values than there is")
            self._scheduler.add(member)
        except Exception as error:  # noqa: BLE001 - it fails one sequence
            task.fail(to_hmi_error(error))
        else:
            if task.submission not in self._members:
                self._members[task.submission] = {}
                task.submission.future.add_done_callback(lambda _: self._end(task.submission))
            self._members[task.submission][member] = None

    def _end(self, submission: Submission) -> None:
        """From any thread."""
        with self._lifecycle.changed:
            self._ended.append(submission)
            self._lifecycle.notify()

    def _drop_cancelled(self) -> None:
        with self._lifecycle.changed:
            ended, self._ended = self._ended, []
        for submission in list(self._members) if self._lifecycle.abandoned else ended:
            if error := self._lifecycle.cancellation(submission):
                for member in list(self._members.get(submission, ())):
                    self._leave(member)
                    member.payload.task.fail(error)

    def _retry_deferred(self) -> None:
        if self._deferred.may_fit:
            for member in self._deferred.take():
                self._scheduler.add(member)

    def _halve(self, members: Sequence[Member]) -> list[Sequence[Member]]:
        """Of those that still run; none of a single one."""
        running = [member for member in members if self._scheduler.is_running(member)]
        middle = len(running) // 2
        return [running[:middle], running[middle:]] if middle else []

    def _fail_running(self, members: Sequence[Member], error: BaseException) -> None:
        for member in members:
            if self._scheduler.is_running(member):
                self._fail(member, error)

    def _settle(self, member: Member) -> None:
        self._leave(member)
        sequence = member.payload
        sequence.task.settle(Outcome(result=sequence.result(), error=None, tokens=len(sequence.task.ids)))

    def _fail(self, member: Member, error: BaseException) -> None:
        if not isinstance(error, HmiError):
            _log.error("a sequence of %d tokens failed: %s: %s", member.tokens, type(error).__name__, error)
        self._leave(member)
        member.payload.task.fail(to_hmi_error(error))

    def _leave(self, member: Member) -> None:
        submission = member.payload.task.submission
        if members := self._members.get(submission):
            members.pop(member, None)
            if not members:
                del self._members[submission]
        self._scheduler.leave(member)
        self._deferred.discard(member)
        self._runner.unpin(member)

    def _reset(self, arrived: Sequence[SequenceTask], error: BaseException) -> None:
        """Fail all sequences with the error, and start with an empty scheduler."""
        members = [member for group in self._members.values() for member in group]
        self._members = {}
        self._deferred.take()
        self._runner.forget()
        self._scheduler = GenerationScheduler(self._limits)
        for member in members:
            self._runner.unpin(member)
        for task in [*arrived, *(member.payload.task for member in members)]:
            task.fail(to_hmi_error(error))


class DecodeLoops:
    """A loop for each decoder, started with its first sequence. Thread-safe."""

    def __init__(self, resources: EngineResources, device: DeviceRunner, config: EngineConfig) -> None:
        self._resources = resources
        self._device = device
        self._config = config
        self._loops: dict[str, DecodeLoop] = {}
        self._lock = threading.Lock()
        self._ended = 0  # preemptions of loops that were closed

    @property
    def preemptions(self) -> int:
        return self._ended + sum(each.preemptions for each in list(self._loops.values()))

    def add(self, tasks: Sequence[SequenceTask]) -> None:
        """Generate these, all of one base model."""
        base = tasks[0].base
        try:
            with self._lock:
                if base.digest not in self._loops:
                    self._loops[base.digest] = self._start(base)
                loop = self._loops[base.digest]
        except Exception as error:  # noqa: BLE001 - it fails these sequences
            for task in tasks:
                task.fail(to_hmi_error(error))
        else:
            loop.add(tasks)

    def close(self, *, drain: bool) -> None:
        """Nothing may be added any more."""
        for loop in self._loops.values():
            loop.close(drain=drain)
        self._ended = self.preemptions
        self._loops.clear()

    def _start(self, base: LoadedModel) -> DecodeLoop:
        limits = SchedulerLimits(
            pages=pool_size(base.spec, self._resources.dtype, self._config.cache_bytes),
            sequences=self._config.generated_rows,
            prefill_tokens=resolve_batch_tokens(self._config.batch_tokens, self._resources.device),
        )
        return DecodeLoop(base, self._resources, self._device, limits)
