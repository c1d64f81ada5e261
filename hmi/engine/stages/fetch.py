"""Second stage: copies what a batch needs to the device while the device runs another one.

Adapters are pinned on the device. Windows are looked up in the tree that is published when the batch is formed.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.adapters import Pooling
from hmi.adapters.maths import order_key
from hmi.adapters.tiers import Resident
from hmi.engine.memory import may_pass
from hmi.engine.resources import EngineResources
from hmi.engine.stages.batches import PlannedBatch, StagedBatch, padded_width
from hmi.engine.stages.layout import BatchLayout, plan_layout
from hmi.engine.stages.lookup import WindowLookup
from hmi.engine.tasks import SequenceTask, to_hmi_error
from hmi.errors import HmiError, InvalidInput
from hmi.items import Task
from hmi.knowledge import Keys, window_keys

_log = logging.getLogger(__name__)


class Fetcher:
    """Stages batches. Each thread that fetches has its own."""

    def __init__(self, resources: EngineResources) -> None:
        self._adapters = resources.adapters
        self._deltas = resources.deltas
        self._device = resources.device
        self._stream = resources.copy_stream
        self._lookup = WindowLookup(resources.frequencies, resources.deltas, self._send)

    @torch.inference_mode()
    def fetch(self, batch: PlannedBatch) -> tuple[StagedBatch | None, list[SequenceTask]]:
        """Pin adapters and stage the batch; `release` it afterwards.

        A task whose adapter cannot be loaded fails and leaves the batch. One whose adapter finds no room beside those
        in use is deferred: it can be fetched after a capacity event. Returns the batch, None where no task is left, and
        the deferred tasks.
        """
        pins: list[str] = []
        staged = None
        try:
            with self._copying():
                rows, deferred = self._pin_adapters(batch, pins)
                staged = self._stage(batch, rows, pins) if rows else None
            return staged, deferred
        finally:
            if staged is None:
                self._adapters.unpin(pins, batch.base.spec.hidden_size)  # others may need the room

    @torch.inference_mode()
    def fetch_step(
        self,
        batch: PlannedBatch,
        ids: NDArray[np.int64],
        keys: Keys,
        residents: Sequence[Resident | None],
        layout: BatchLayout | None,
    ) -> StagedBatch:
        """Stage one more token of each sequence: `ids` `[B]` with their windows `keys` `[B]`.

        Adapters are pinned already. `layout` is that of an earlier step of the same sequences, where there was one.
        """
        base, tasks = batch.base, batch.tasks
        with self._copying():
            real = np.ones((len(ids), 1), np.bool_)
            rows = None
            if base.spec.k:
                rows = self._lookup.look_up(base, tasks, keys, np.ones(len(ids), np.int64), real)
            return StagedBatch(
                batch.number,
                base,
                tasks,
                ids=self._send(ids[:, None]),
                mask=self._send(real),
                full=True,
                rows=rows,
                layout=layout or plan_layout(base, tasks, residents, self._device),
                pins=(),
                ready=self._stream.record_event() if self._stream else None,
            )

    def release(self, batch: StagedBatch) -> None:
        """Unpin the batch's adapters. Call it once."""
        self._adapters.unpin(batch.pins, batch.base.spec.hidden_size)

    def _copying(self) -> contextlib.AbstractContextManager[object]:
        return torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext()

    def _pin_adapters(
        self, batch: PlannedBatch, pins: list[str]
    ) -> tuple[list[tuple[SequenceTask, Resident | None]], list[SequenceTask]]:
        """Pin each adapter once for the whole batch. Returns the tasks that can run, and those that are deferred."""
        rows, deferred = list[tuple[SequenceTask, Resident | None]](), list[SequenceTask]()
        pinned: dict[str, Resident] = {}
        broken = self._broken_deltas(batch)
        for task in batch.tasks:
            has_room = False
            try:
                key = task.adapter
                if key is not None and key not in pinned:
                    pinned[key] = self._adapters.pin(key, batch.base.spec.hidden_size)
                    pins.append(key)
                resident = pinned[key] if key else None
                has_room = True
                if task.item.task is Task.CLASSIFY:
                    _check_head(task, resident)
                if (wrong := broken.get(task.item.model.delta)) is not None:
                    raise wrong
            except Exception as error:  # noqa: BLE001 - what is wrong with one tenant's file is not its batch-mates' fault
                if not has_room and may_pass(error):
                    deferred.append(task)
                    continue
                if not isinstance(error, HmiError):
                    _log.exception("adapter %s could not be read", task.item.model.adapter)
                task.fail(to_hmi_error(error))
            else:
                rows.append((task, resident))
        return rows, deferred

    def _broken_deltas(self, batch: PlannedBatch) -> dict[str | None, Exception]:
        """The error of each delta that cannot be loaded, so that it fails its own rows alone."""
        errors: dict[str | None, Exception] = {}
        for delta in dict.fromkeys(task.item.model.delta for task in batch.tasks):
            try:
                if delta is not None:
                    self._deltas.get(batch.base, delta)
            except Exception as error:  # noqa: BLE001 - raised for each of its rows
                errors[delta] = error
        return errors

    def _stage(
        self, batch: PlannedBatch, rows: list[tuple[SequenceTask, Resident | None]], pins: list[str]
    ) -> StagedBatch:
        rows.sort(key=lambda row: order_key(row[1]))
        base, tasks = batch.base, tuple(task for task, _ in rows)
        width = padded_width(base, tasks)
        lengths = np.array([len(task.ids) for task in tasks])
        real = np.arange(width) < lengths[:, None]  # [B, T]
        ids = np.full(real.shape, base.spec.pad_token_id, np.int64)
        ids[real] = np.concatenate([task.ids for task in tasks])
        window_rows = None
        if base.spec.k:
            keys = window_keys(ids[real], lengths, looks_back=base.spec.family.decodes)
            window_rows = self._lookup.look_up(base, tasks, keys, lengths, real)
        return StagedBatch(
            batch.number,
            base,
            tasks,
            ids=self._send(ids),
            mask=self._send(real),
            full=bool(real.all()),
            rows=window_rows,
            layout=plan_layout(base, tasks, [resident for _, resident in rows], self._device),
            pins=tuple(pins),
            ready=self._stream.record_event() if self._stream else None,
        )

    def _send(self, array: NDArray[np.generic]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._stream is None:
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


def _check_head(task: SequenceTask, resident: Resident | None) -> None:
    """Raises `InvalidInput` unless the adapter can classify the item."""
    if resident is None or resident.head is None:
        raise InvalidInput("the model has no classification head; ask it for embeddings", param="model")
    if resident.head.pooling is Pooling.TOKENS and task.item.text is None:
        raise InvalidInput("the model labels the words of a text, and token ids are not one; send text", param="input")
