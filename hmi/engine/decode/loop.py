"""The loop that continues texts: many tenants' sequences of one base model, a step at a time.

Texts join and leave between steps. Before each step their windows are looked up and those that nobody holds are
computed together; each runs with its own adapter, in reading as in continuing. Whatever goes wrong with a step is found
in halves, down to the text that is to blame.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.maths import ServingAdapters, order_key
from hmi.engine.arrange import adapters_of
from hmi.engine.banks import Banks
from hmi.engine.decode.cache import newest_places, page_parts, places_of
from hmi.engine.decode.logprobs import LogprobBuffer
from hmi.engine.decode.sampling import choose_tokens, most_likely
from hmi.engine.decode.scheduler import GenerationScheduler, Prefill, SchedulerLimits, SequenceState, pages_for
from hmi.engine.decode.sequence import Text
from hmi.engine.decode.token_bytes import read_pieces
from hmi.engine.device import DeviceRunner
from hmi.engine.fetch import Fetcher
from hmi.engine.finish import keep_computed
from hmi.engine.hosted import LoadedModel
from hmi.engine.releases import CapacityEvents
from hmi.engine.stats import Counters
from hmi.engine.work import Batch, SequenceTask, Submission, to_hmi_error
from hmi.errors import Cancelled, ContextTooLong, HmiError, InvalidInput, Overloaded
from hmi.items import GenerationParams, Outcome
from hmi.knowledge import pack
from hmi.models.layers import PAGE_TOKENS, PagedKvCache

__all__ = ["DecodeLoop"]

_log = logging.getLogger(__name__)

_SCORED = 256  # tokens whose logits are computed at once


class DecodeLoop:
    """Continues the texts of one base model, on a thread of its own.

    Args:
        limits: Of the pool of keys and values, which is allocated here, and of the steps.
    """

    def __init__(
        self,
        base: LoadedModel,
        fetcher: Fetcher,
        device: DeviceRunner,
        banks: Banks,
        counters: Counters,
        limits: SchedulerLimits,
        releases: CapacityEvents,
    ) -> None:
        self._base = base
        self._model = base.model.decoder
        self._fetcher = fetcher
        self._device = device
        self._banks = banks
        self._counters = counters
        self._limits = limits
        self._pieces = read_pieces(base.tokenizer)
        self._pages = PagedKvCache(base.spec, 1 + limits.pages, base.model.device, base.model.dtype)
        self._roster: GenerationScheduler[Text] = GenerationScheduler(limits)
        self._members: dict[Submission, dict[SequenceState[Text], None]] = {}
        self._ended: list[Submission] = []  # whose outcomes nobody waits for any more, or are all there
        self._arrived: list[SequenceTask] = []
        self._parked: list[SequenceState[Text]] = []  # whose adapters find no room beside those in use
        self._tried = 0  # releases before the last of them tried
        self._releases = releases
        self._wake = threading.Condition()
        self._closed = self._abandoned = False
        self._numbers = itertools.count(1)
        self._planned: tuple[list[object], Batch] | None = None
        releases.subscribe(self._look_again)
        self._thread = threading.Thread(target=self._run, name="hmi-generate", daemon=True)
        self._thread.start()

    @property
    def preemptions(self) -> int:
        """How often a text was put back for want of room, and read again."""
        return self._roster.preemptions

    def add(self, works: Sequence[SequenceTask]) -> None:
        """Texts to continue; each is settled once."""
        with self._wake:
            self._arrived += works
            self._wake.notify_all()

    def close(self, *, drain: bool) -> None:
        """Stop; with `drain` after everything that was added."""
        with self._wake:
            self._closed = True
            self._abandoned |= not drain
            self._wake.notify_all()
        self._thread.join()
        self._releases.unsubscribe(self._look_again)

    def _look_again(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _is_due(self) -> bool:
        ends = self._closed and (self._abandoned or not self._parked)
        return bool(self._arrived or self._ended) or not self._roster.is_empty or self._may_unpark() or ends

    def _may_unpark(self) -> bool:
        return bool(self._parked) and self._releases.count != self._tried

    def _run(self) -> None:
        self._device.prepare_thread()
        while True:
            with self._wake:
                self._wake.wait_for(self._is_due)
                arrived, self._arrived = self._arrived, []
                if not arrived and self._roster.is_empty and not self._parked and self._closed:
                    return
            try:
                for work in arrived:
                    self._admit(work)
                self._drop_unwanted()
                if self._may_unpark():
                    self._unpark()
                step = self._roster.next_step()
                if step is not None:
                    self._isolated(step.members, self._read if isinstance(step, Prefill) else self._go_on)
                else:
                    self._planned = None  # nothing of those that are gone is kept
            except BaseException as error:  # noqa: BLE001 - a thread that ends would leave all waiting
                _log.exception("a step of generation failed beyond its texts")
                self._start_anew(arrived, error)

    def _start_anew(self, arrived: Sequence[SequenceTask], error: BaseException) -> None:
        """What is here is settled with the error, and those that come find a generator that works."""
        members = self._all()
        self._members, self._parked, self._planned = {}, [], None
        self._roster = GenerationScheduler(self._limits)
        for member in members:
            if member.what.is_pinned:
                self._fetcher.unpin(self._base, member.what.pinned)
        for work in [*arrived, *(member.what.work for member in members)]:
            work.fail(to_hmi_error(error))

    def _admit(self, work: SequenceTask) -> None:
        params = work.item.params or GenerationParams()
        context = self._base.spec.max_positions
        # What the pool cannot hold ends there: who asks for as much as there is gets as much as there is.
        most = min(len(work.ids) + params.max_tokens, context, self._limits.pages * PAGE_TOKENS)
        try:
            if params.max_tokens and len(work.ids) >= context:
                raise ContextTooLong(
                    f"the prompt has {len(work.ids)} tokens, and the model takes {context} with what is generated",
                    param="prompt",
                )
            member = SequenceState(Text(work, params, most, self._pieces), len(work.ids), group=work.submission)
            least = len(work.ids) + (1 if params.max_tokens else 0)
            if pages_for(least) > self._limits.pages:
                raise Overloaded(f"a text of {least} tokens needs more memory for keys and values than there is")
            self._roster.add(member)
        except Exception as error:  # noqa: BLE001 - one text's fault
            work.fail(to_hmi_error(error))
        else:
            if work.submission not in self._members:
                self._members[work.submission] = {}
                work.submission.future.add_done_callback(lambda _: self._end(work.submission))
            self._members[work.submission][member] = None

    def _end(self, submission: Submission) -> None:
        """From any thread."""
        with self._wake:
            self._ended.append(submission)
            self._wake.notify_all()

    def _all(self) -> list[SequenceState[Text]]:
        return [member for members in self._members.values() for member in members]

    def _drop_unwanted(self) -> None:
        with self._wake:
            ended, self._ended = self._ended, []
        unwanted = [member for submission in ended for member in self._members.get(submission, ())]
        for member in self._all() if self._abandoned else unwanted:
            self._leave(member)
            why = "the engine was closed before this ran" if self._abandoned else "nobody waits for this any more"
            member.what.work.fail(Cancelled(why))

    def _isolated(
        self, members: Sequence[SequenceState[Text]], run: Callable[[Sequence[SequenceState[Text]]], None]
    ) -> None:
        try:
            run(members)
            return
        except BaseException as error:  # noqa: BLE001 - one tenant's text must not cost others theirs
            failure = error.with_traceback(None)
        members = [member for member in members if self._roster.runs(member)]
        if len(members) > 1:
            middle = len(members) // 2
            self._isolated(members[:middle], run)
            self._isolated(members[middle:], run)
        elif members:
            self._fail(members[0], failure)

    @torch.inference_mode()
    def _read(self, members: Sequence[SequenceState[Text]]) -> None:
        """Read texts from their beginning, and take each one's next token."""
        works = [
            SequenceTask(each.what.work.submission, each.what.work.index, each.what.ids, self._base) for each in members
        ]
        by_work = dict(zip(map(id, works), members, strict=True))
        batch = Batch(self._base, works, next(self._numbers))
        tried = self._releases.count
        try:
            deferred = self._fetcher.fetch(batch)
            if deferred:
                # Those that were parked before may have room since: their own try counts.
                self._tried = min(self._tried, tried) if self._parked else tried
            for work in deferred:
                self._park(by_work.pop(id(work)))
            kept = [by_work.pop(id(work)) for work in batch.works]
            for member in by_work.values():  # settled with what is wrong with them
                self._leave(member)
            if not kept:
                return
            for row, member in enumerate(kept):
                self._pin(member, batch, row)
            with self._device.turn(), self._counters.working("device", batch=batch.number, rows=len(kept)):
                self._clear_pages()
                hidden, mask = self._device.lower(batch), batch.mask
                if mask is None:
                    raise ValueError("the batch was not fetched")
                places = torch.from_numpy(places_of(kept)).to(hidden.device)
                states = self._model.prefill(hidden, mask, self._pages, places, self._adapters(batch))
                lengths = mask.sum(1)
                rows = torch.arange(len(kept), device=states.device)
                logits = self._model.logits(states[rows, lengths - 1])
                self._counters.add(batch)
            keep_computed(batch)
            for row, member in enumerate(kept):
                self._score_prompt(member.what, states[row])
            self._take(kept, logits)
        finally:
            self._fetcher.release(batch)

    @torch.inference_mode()
    def _go_on(self, members: Sequence[SequenceState[Text]]) -> None:
        """Continue texts by a token."""
        members = sorted(members, key=lambda each: order_key(each.what.resident))
        batch = self._batch_of(members)
        few = np.array([each.what.last(3) for each in members], np.int64)  # [B, 3], newest last
        self._fetcher.fetch_next(batch, few[:, 2], pack(few[:, 1], few[:, 2], few[:, 0]))
        with self._device.turn(), self._counters.working("device", batch=batch.number, rows=len(members)):
            self._clear_pages()
            device = self._model.device
            positions = torch.tensor([each.tokens - 1 for each in members], device=device)
            places = torch.from_numpy(newest_places(members)).to(device)
            hidden, parts = self._device.lower(batch, positions[:, None]), page_parts(members, self._pages)
            states = self._model.decode(hidden, positions, self._pages, places, parts, self._adapters(batch))
            logits = self._model.logits(states[:, 0])
            self._counters.add_step(batch)
        keep_computed(batch)
        self._take(members, logits)

    def _clear_pages(self) -> None:
        """What somebody else left in pages that have a new owner; within a turn."""
        if allotted := self._roster.drain_allotted():
            self._pages.clear(allotted)

    def _batch_of(self, members: Sequence[SequenceState[Text]]) -> Batch:
        """With the plan of the step before, where the same texts run."""
        texts: list[object] = [each.what for each in members]
        works = [each.what.work for each in members]
        batch = Batch(self._base, works, next(self._numbers), [each.what.resident for each in members])
        if self._planned is not None and self._planned[0] == texts:
            batch.plan = self._planned[1].plan
        self._planned = (texts, batch)
        return batch

    def _adapters(self, batch: Batch) -> ServingAdapters | None:
        return adapters_of(batch, self._banks.get(self._base.spec.hidden_size).arena)

    def _take(self, members: Sequence[SequenceState[Text]], logits: Tensor) -> None:
        """Choose each one's next token by its logits `[B, vocabulary]`; who is at its end leaves with its answer."""
        texts = [each.what for each in members]
        if not bool(torch.isfinite(logits).all()):
            raise InvalidInput("the model gave numbers that are not finite; its adapter may not fit the dtype")
        drawn = [len(text.generated) for text in texts]
        chosen = choose_tokens(logits, [text.params.sampling for text in texts], drawn)
        ids, logprobs = chosen.ids.cpu().numpy(), chosen.logprobs.cpu().numpy()
        told = [row for row, text in enumerate(texts) if text.told is not None]
        best_ids, best_logprobs = _best(logits[told], max((texts[row].params.logprobs or 0 for row in told), default=0))
        place_of = {row: place for place, row in enumerate(told)}
        for row, member in enumerate(members):
            text = texts[row]
            try:
                if text.told is not None and text.params.max_tokens:
                    one, best = slice(row, row + 1), slice(place_of[row], place_of[row] + 1)
                    text.told.add(ids[one], logprobs[one], best_ids[best], best_logprobs[best])
                if not text.params.max_tokens or text.accept(int(ids[row])):
                    self._settle(member)
                else:
                    member.tokens = text.length
            except BaseException as error:  # noqa: BLE001 - from here on a step cannot be run again
                self._fail(member, error)

    def _score_prompt(self, text: Text, states: Tensor) -> None:
        """Of the prompt's tokens, where they are asked for and not known yet; states `[T, H]`."""
        if text.told is None or not text.params.echo or len(text.told):
            return
        ids, told = text.work.ids, LogprobBuffer(text.told.count)
        told.begin(int(ids[0]))
        for start in range(0, len(ids) - 1, _SCORED):
            logits = self._model.logits(states[start : min(start + _SCORED, len(ids) - 1)])
            following = ids[start + 1 : start + 1 + len(logits)]
            wide = logits.float()
            own = wide.gather(1, torch.from_numpy(following).to(logits.device)[:, None])[:, 0] - wide.logsumexp(-1)
            told.add(following, own.cpu().numpy(), *_best(logits, told.count))
        text.told = told

    def _settle(self, member: SequenceState[Text]) -> None:
        self._leave(member)
        text = member.what
        text.work.settle(Outcome(result=text.result(), error=None, tokens=len(text.work.ids)))

    def _fail(self, member: SequenceState[Text], error: BaseException) -> None:
        if not isinstance(error, HmiError):
            _log.error("a text of %d tokens failed: %s: %s", member.tokens, type(error).__name__, error)
        self._leave(member)
        member.what.work.fail(to_hmi_error(error))

    def _leave(self, member: SequenceState[Text]) -> None:
        submission = member.what.work.submission
        if members := self._members.get(submission):
            members.pop(member, None)
            if not members:
                del self._members[submission]
        self._roster.leave(member)
        if member in self._parked:
            self._parked.remove(member)
        if member.what.is_pinned:
            self._fetcher.unpin(self._base, member.what.pinned)
            member.what.is_pinned = False

    def _pin(self, member: SequenceState[Text], batch: Batch, row: int) -> None:
        text = member.what
        text.resident = batch.residents[row]
        if not text.is_pinned:
            text.pinned, text.is_pinned = self._fetcher.pin(batch, row), True

    def _park(self, member: SequenceState[Text]) -> None:
        """Until somebody gives an adapter back: a text that runs here, or a batch, or another base model's text."""
        self._roster.leave(member)
        self._parked.append(member)

    def _unpark(self) -> None:
        parked, self._parked = self._parked, []
        for member in parked:
            self._roster.add(member)


def _best(logits: Tensor, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of the likeliest tokens of each row of `[n, vocabulary]`: ids and log-probabilities `[n, count]`."""
    if not count:
        return np.zeros((len(logits), 0), np.int64), np.zeros((len(logits), 0), np.float32)
    ids, logprobs = most_likely(logits, count)
    return ids.cpu().numpy(), logprobs.cpu().numpy()
