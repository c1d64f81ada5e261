"""Computes a step of generation: the forward of a prefill or of one more token, with keys and values in pages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hmi.adapters.maths import ServingAdapters
from hmi.engine.decode.cache import all_places, newest_places, page_parts
from hmi.engine.decode.sampling import best_tokens
from hmi.engine.decode.scheduler import SequenceState
from hmi.engine.decode.sequence import GeneratingSequence, LogprobBuffer
from hmi.engine.memory import LoadedModel
from hmi.engine.resources import EngineResources
from hmi.engine.stages import BatchLayout, DeviceRunner, Fetcher, PlannedBatch, StagedBatch, keep_rows
from hmi.engine.tasks import SequenceTask
from hmi.knowledge import pack
from hmi.models.layers import PagedKvCache

Member = SequenceState[GeneratingSequence]

_SCORED = 256  # prompt tokens whose logits are computed at once


class GenerationRunner:
    """Of one base model, for one thread. Raises `InvalidInput` for an encoder.

    `pages` of keys and values are allocated here, with an empty one beside them.
    """

    def __init__(self, base: LoadedModel, resources: EngineResources, device: DeviceRunner, pages: int) -> None:
        self._base = base
        self._model = base.model.decoder
        self._fetcher = Fetcher(resources)
        self._adapters = resources.adapters
        self._counters = resources.counters
        self._device = device
        self._pages = PagedKvCache(base.spec, 1 + pages, base.model.device, base.model.dtype)
        self._numbers = itertools.count(1)
        self._last: tuple[list[GeneratingSequence], BatchLayout] | None = None  # of the last decode step

    def forget(self) -> None:
        """Keep nothing of sequences that have left."""
        self._last = None

    def stage(self, members: Sequence[Member]) -> tuple[StagedBatch | None, dict[SequenceTask, Member], list[Member]]:
        """Stage whole sequences. Returns the batch, which is to be released; the members by task, those that failed
        included; and the deferred members."""
        tasks = {
            SequenceTask(each.payload.task.submission, each.payload.task.index, each.payload.ids, self._base): each
            for each in members
        }
        staged, deferred = self._fetcher.fetch(PlannedBatch(next(self._numbers), self._base, tuple(tasks)))
        return staged, tasks, [tasks.pop(task) for task in deferred]

    def release(self, batch: StagedBatch) -> None:
        self._fetcher.release(batch)

    def pin(self, members: Sequence[Member], batch: StagedBatch) -> None:
        """Pin the members' adapters beyond the end of their batch, until `unpin`."""
        for member, resident in zip(members, batch.layout.residents, strict=True):
            sequence = member.payload
            sequence.resident = resident
            if sequence.pin is None and (key := sequence.task.adapter) is not None:
                self._adapters.pin(key, self._base.spec.hidden_size)
                sequence.pin = key

    def unpin(self, member: Member) -> None:
        pin, member.payload.pin = member.payload.pin, None
        if pin is not None:
            self._adapters.unpin([pin], self._base.spec.hidden_size)

    def prefill(self, members: Sequence[Member], batch: StagedBatch, new_pages: Sequence[int]) -> Tensor:
        """Run the sequences of a batch from their beginning. Returns the logits of their next tokens `[B, vocabulary]`.

        `new_pages` are those allotted since the last step; what they held is cleared.
        """
        with self._device.slot(), self._counters.working("device", batch=batch.number, rows=len(members)):
            if new_pages:
                self._pages.clear(new_pages)
            hidden, computed = self._device.lower(batch)  # [B, T, H]
            places = torch.from_numpy(all_places(members)).to(hidden.device)  # [tokens of all]
            states = self._model.prefill(hidden, batch.mask, self._pages, places, self._adapters_of(batch))
            rows = torch.arange(len(members), device=states.device)
            logits = self._model.logits(states[rows, batch.mask.sum(1) - 1])
            self._counters.add(batch)
        keep_rows(batch, computed)
        for row, member in enumerate(members):
            self._score_prompt(member.payload, states[row])
        return logits

    def decode(self, members: Sequence[Member], new_pages: Sequence[int]) -> Tensor:
        """Run the newest token of each sequence. As `prefill`; adapters are pinned already."""
        batch = self._stage_step(members)
        with self._device.slot(), self._counters.working("device", batch=batch.number, rows=len(members)):
            if new_pages:
                self._pages.clear(new_pages)
            device = self._model.device
            positions = torch.tensor([each.tokens - 1 for each in members], device=device)  # [B]
            places = torch.from_numpy(newest_places(members)).to(device)  # [B]
            hidden, computed = self._device.lower(batch, positions[:, None])  # [B, 1, H]
            parts = page_parts(members, self._pages)
            states = self._model.decode(hidden, positions, self._pages, places, parts, self._adapters_of(batch))
            logits = self._model.logits(states[:, 0])
            self._counters.add_decode(batch)
        keep_rows(batch, computed)
        return logits

    def _stage_step(self, members: Sequence[Member]) -> StagedBatch:
        """With the layout of the last decode step where the same sequences run."""
        sequences = [each.payload for each in members]
        planned = PlannedBatch(next(self._numbers), self._base, tuple(each.task for each in sequences))
        layout = self._last[1] if self._last is not None and self._last[0] == sequences else None
        newest = np.array([each.last(3) for each in sequences], np.int64)  # [B, 3], newest last
        keys = pack(newest[:, 1], newest[:, 2], newest[:, 0])
        residents = [each.resident for each in sequences]
        batch = self._fetcher.fetch_step(planned, newest[:, 2], keys, residents, layout)
        self._last = (sequences, batch.layout)
        return batch

    def _adapters_of(self, batch: StagedBatch) -> ServingAdapters | None:
        return batch.layout.adapters_on(self._adapters.tier(self._base.spec.hidden_size).arena)

    def _score_prompt(self, sequence: GeneratingSequence, states: Tensor) -> None:
        """Keep the log-probabilities of the prompt's tokens where they are asked for; states `[T, H]`."""
        buffer = sequence.logprobs
        if buffer is None or not sequence.params.echo or len(buffer):
            return
        ids, scored = sequence.task.ids, LogprobBuffer(buffer.count)
        scored.begin(int(ids[0]))
        for start in range(0, len(ids) - 1, _SCORED):
            logits = self._model.logits(states[start : min(start + _SCORED, len(ids) - 1)])  # [n, vocabulary]
            following = ids[start + 1 : start + 1 + len(logits)]
            wide = logits.float()
            own = wide.gather(1, torch.from_numpy(following).to(logits.device)[:, None])[:, 0] - wide.logsumexp(-1)
            scored.add(following, own.cpu().numpy(), *best_tokens(logits, buffer.count))
        sequence.logprobs = scored
