"""Third stage: runs staged batches on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.maths import SharedLora, mean_pool
from hmi.engine.memory import LoadedModel
from hmi.engine.resources import EngineResources
from hmi.engine.stages.batches import ComputedBatch, StagedBatch, split_batch
from hmi.engine.stages.dequantise import decode_rows
from hmi.engine.stages.window_rows import WindowRows
from hmi.engine.supervision import run_isolated
from hmi.engine.tasks import to_hmi_error
from hmi.items import Task
from hmi.knowledge import unpack
from hmi.locks import FairSemaphore
from hmi.models.layers import round_rows

_COMPUTE_CHUNK = 512  # windows of a tree build that are computed before a waiting batch may run
# The last bits of a matrix product depend on its number of rows, and where rows are rounded to int8 a last bit can
# become a whole step. Windows are computed in blocks of one size, the last one filled up, so that a row is the same
# whichever windows it is computed with.
_WINDOW_BLOCK = 64


class DeviceRunner:
    """All that computes on the device runs within `slot`, `device_threads` at a time with `threads_each` CPU threads.

    Adapters of the batches are pinned.
    """

    def __init__(self, resources: EngineResources, *, device_threads: int, threads_each: int) -> None:
        self._device = resources.device
        self._dtype = resources.dtype
        self._adapters = resources.adapters
        self._slots = FairSemaphore(device_threads)
        self._threads_each = threads_each

    @torch.inference_mode()
    def run(self, batch: StagedBatch) -> list[ComputedBatch]:
        """Compute a batch, or the parts that it is split into where it fails. A sequence that fails alone is settled
        with its error and is in no part."""
        return run_isolated(
            batch,
            self._run_in_slot,
            lambda failed: split_batch(failed, self._device),
            lambda failed, error: failed.tasks[0].fail(to_hmi_error(error, len(failed.tasks[0].ids))),
        )

    @torch.inference_mode()
    def compute_rows(
        self, base: LoadedModel, keys: NDArray[np.uint64], delta: SharedLora | None
    ) -> NDArray[np.float32]:
        """Rows float32 `[n, H]` of packed windows, rounded as tables round them. Batches run between chunks."""
        rows = np.empty((len(keys), base.spec.hidden_size), np.float32)
        for start in range(0, len(keys), _COMPUTE_CHUNK):
            windows = torch.from_numpy(unpack(keys[start : start + _COMPUTE_CHUNK]))
            with self.slot():
                rows[start : start + len(windows)] = _compute(base, windows.to(self._device), delta).cpu().numpy()
        return rows

    def prepare_thread(self) -> None:
        """Call once in a thread that only runs batches."""
        torch.set_num_threads(self._threads_each)

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for the device, in order of arrival; within the block this thread has its share of the cores."""
        with self._slots.acquire():
            before = torch.get_num_threads()
            if before == self._threads_each:
                yield
                return
            torch.set_num_threads(self._threads_each)
            try:
                yield
            finally:
                torch.set_num_threads(before)

    def lower(self, batch: StagedBatch, positions: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The input of the upper layers `[B, T, H]`, and the rows float32 `[N, H]` of windows that were computed.

        Call it within `slot`. `positions` int64 `[B, T]` are of each token in its sequence; None counts from 0.
        """
        model = batch.base.model
        if batch.ready is not None:
            torch.cuda.current_stream(self._device).wait_event(batch.ready)
        if batch.rows is None:
            return model.embed(batch.ids, positions), None
        flat, computed = self._rows(batch.base, batch.rows)
        return model.merge(flat.view(*batch.ids.shape, -1), positions), computed

    def _run_in_slot(self, batch: StagedBatch) -> ComputedBatch:
        with self.slot():
            return self._run(batch)

    def _run(self, batch: StagedBatch) -> ComputedBatch:
        model, layout = batch.base.model, batch.layout
        arena = self._adapters.tier(batch.base.spec.hidden_size).arena
        lower, computed = self.lower(batch)  # [B, T, H]
        mask = None if batch.full else batch.mask
        hidden = model.upper(lower, mask, layout.adapters_on(arena), first_only=layout.first_only)  # [B, T or 1, H]
        logits, pooled = np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)
        tags, tag_scores = np.empty((0, 0), np.int64), np.empty((0, 0), np.float32)
        if any(task.item.task is Task.EMBED for task in batch.tasks):
            mean = mean_pool(hidden.float(), batch.mask)  # [B, H]
            pooled = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
        if layout.heads is not None:
            logits = layout.heads.apply(arena, hidden, batch.mask, model.pooler).cpu().numpy()
        if layout.token_heads is not None:
            tags, tag_scores = (each.cpu().numpy() for each in layout.token_heads.apply(arena, hidden))
        return ComputedBatch(batch, computed, logits, pooled, tags, tag_scores)

    def _rows(self, base: LoadedModel, rows: WindowRows) -> tuple[Tensor, Tensor | None]:
        """The row of each token `[B * T, H]`, and those that were computed, float32 `[N, H]`."""
        flat = decode_rows(rows.codes, rows.scales, rows.positions, self._dtype)  # [B * T, H]
        computed = None
        if rows.groups:
            windows = torch.split(rows.windows, [len(group.keys) for group in rows.groups])
            computed = torch.cat(
                [_compute(base, some, group.delta) for some, group in zip(windows, rows.groups, strict=True)]
            )
            flat.index_copy_(0, rows.places, computed.to(self._dtype).index_select(0, rows.sources))
        for group in rows.estimates:
            flat.index_copy_(0, group.places, group.rows(self._dtype))
        return flat, computed


def _compute(base: LoadedModel, windows: Tensor, delta: SharedLora | None) -> Tensor:
    """Rows float32 `[n, H]` of windows `[n, 3]`, rounded as a stored row is: an answer must not depend on whether its
    rows were stored or computed."""
    count = len(windows)
    filled = torch.nn.functional.pad(windows, (0, 0, 0, -count % _WINDOW_BLOCK))
    states = torch.cat([base.model.lower(block, delta) for block in torch.split(filled, _WINDOW_BLOCK)])[:count]
    return round_rows(states.float(), base.spec.row_dtype)
