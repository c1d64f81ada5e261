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

__all__ = ["Fetcher"]

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

        A task whose adapter cannot be had fails and leaves the batch. A task whose adapter finds no room beside those
        in use is returned: it can be fetched after a capacity event.

        Returns:
            The batch, None where no task is left, and the deferred tasks.
        """
        pins: list[str] = []
        try:
            with self._copying():
                rows, deferred = self._pin_adapters(batch, pins)
                staged = self._stage(batch, rows, pins) if rows else None
        except BaseException:
            self._adapters.unpin(pins, batch.base.spec.hidden_size)
            raise
        if staged is None:
            self._adapters.unpin(pins, batch.base.spec.hidden_size)  # of tasks that failed; others may need the room
        return staged, deferred

    @torch.inference_mode()
    def fetch_step(
        self,
        batch: PlannedBatch,
        ids: NDArray[np.int64],
        keys: Keys,
        residents: Sequence[Resident | None],
        layout: BatchLayout | None,
    ) -> StagedBatch:
        """Stage one more token of each sequence. Its adapters are pinned already.

        Args:
            ids: Of the new tokens `[B]`.
            keys: Their windows, uint64 `[B]`.
            layout: Of an earlier step of the same sequences, where there was one.
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
        deltas: dict[str, Exception | None] = {}
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
                self._check_delta(task, deltas)
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

    def _check_delta(self, task: SequenceTask, checked: dict[str, Exception | None]) -> None:
        """Load the task's delta, so that a damaged one fails its own rows alone.

        Each is loaded once for the whole batch: where they have no room beside each other, each look is a load.
        """
        delta = task.item.model.delta
        if delta is None:
            return
        if delta not in checked:
            try:
                self._deltas.get(task.base, delta)
                checked[delta] = None
            except Exception as error:  # noqa: BLE001 - raised below, for each of its rows
                checked[delta] = error
        if (wrong := checked[delta]) is not None:
            raise wrong

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
