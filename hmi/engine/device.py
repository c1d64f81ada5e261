"""Third stage: what only the device does. One batch at a time, whole, on one version of everything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.maths import SharedLora, mean_pool
from hmi.engine.arrange import adapters_of
from hmi.engine.banks import Banks
from hmi.engine.dequantise import decode_rows
from hmi.engine.hosted import LoadedModel
from hmi.engine.parts import cut
from hmi.engine.work import Batch, to_hmi_error
from hmi.items import Task
from hmi.knowledge import unpack
from hmi.locks import FairSemaphore
from hmi.models.layers import round_rows

__all__ = ["DeviceRunner"]

_COMPUTE_CHUNK = 512  # windows in one turn of a tree build: what a batch may have to wait for
# A matrix product's last bits depend on how many rows it has, and where rows are rounded to int8 a last bit
# can become a whole step. Windows are computed in blocks of one size, the last one filled up, so that a row is the
# same whichever windows it was computed with.
_WINDOW_BLOCK = 64


class DeviceRunner:
    """Owns the turns in which anything runs on the device. The batches' adapters are resident in the banks.

    Args:
        device_threads: How many may run at a time.
        threads_each: CPU threads of each.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, banks: Banks, *, device_threads: int = 1, threads_each: int = 1
    ) -> None:
        self._device = device
        self._dtype = dtype
        self._banks = banks
        self._turns = FairSemaphore(device_threads)
        self._threads_each = threads_each

    @torch.inference_mode()
    def run(self, batch: Batch) -> list[Batch]:
        """Fill `logits` float32 `[B, most labels]`, `pooled` float32 `[B, H]` and the tags, as its items ask.

        Returns the batch, or the parts that it was cut into: a batch that does not fit, or that fails for
        whatever reason, is run in halves, down to the sequence that is to blame. That one is settled with its
        error and is in none of the parts.
        """
        try:
            with self.turn():
                self._run(batch)
            return [batch]
        except Exception as error:  # noqa: BLE001 - one tenant's sequence must not cost others theirs
            # Without its traceback, which would keep the tensors of this attempt while the next one needs their room.
            failure = error.with_traceback(None)
        if len(batch.works) > 1:
            middle = len(batch.works) // 2
            return self._run_part(batch, slice(0, middle)) + self._run_part(batch, slice(middle, None))
        batch.fail(to_hmi_error(failure, len(batch.works[0].ids)))
        return []

    @torch.inference_mode()
    def compute_rows(
        self, base: LoadedModel, keys: NDArray[np.uint64], delta: SharedLora | None
    ) -> NDArray[np.float32]:
        """Rows float32 `[n, H]` of packed windows, rounded as tables round them. Lets batches in between."""
        rows = np.empty((len(keys), base.spec.hidden_size), np.float32)
        for start in range(0, len(keys), _COMPUTE_CHUNK):
            windows = torch.from_numpy(unpack(keys[start : start + _COMPUTE_CHUNK]))
            with self.turn():
                rows[start : start + len(windows)] = _rows(base, windows.to(self._device), delta).cpu().numpy()
        return rows

    def prepare_thread(self) -> None:
        """Call once in a thread that only runs batches."""
        torch.set_num_threads(self._threads_each)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """A turn on the device, in which this thread has its share of the cores."""
        with self._turns.take():
            before = torch.get_num_threads()
            if before == self._threads_each:
                yield
                return
            torch.set_num_threads(self._threads_each)
            try:
                yield
            finally:
                torch.set_num_threads(before)

    def _run(self, batch: Batch) -> None:
        model, bank = batch.base.model, self._banks.get(batch.base.spec.hidden_size)
        lower, adapters = self.lower(batch), adapters_of(batch, bank.arena)
        hidden = model.upper(lower, None if batch.full else batch.mask, adapters, first_only=batch.first_only)
        if any(work.item.task is Task.EMBED for work in batch.works) and batch.mask is not None:
            pooled = mean_pool(hidden.float(), batch.mask)
            batch.pooled = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        if batch.heads is not None:
            batch.logits = batch.heads.apply(bank.arena, hidden, batch.mask, model.pooler).cpu().numpy()
        if batch.taggers is not None:
            tags, scores = batch.taggers.apply(bank.arena, hidden)
            batch.tags, batch.tag_scores = tags.cpu().numpy(), scores.cpu().numpy()

    def lower(self, batch: Batch, places: Tensor | None = None) -> Tensor:
        """What a fetched batch's upper layers are given, `[B, T, H]`; within a turn.

        Args:
            places: int64 `[B, T]`, where in its sequence each token stands; None: from the beginning.
        """
        model, ids = batch.base.model, batch.ids
        if ids is None:
            raise ValueError("the batch was not fetched")
        if batch.ready is not None:
            torch.cuda.current_stream(self._device).wait_event(batch.ready)
        if batch.codes is None or batch.positions is None:
            return model.embed(ids, places)
        flat = decode_rows(batch.codes, batch.scales, batch.positions, self._dtype)  # [B * T, H]
        if batch.windows is not None and batch.places is not None and batch.sources is not None and batch.groups:
            windows = torch.split(batch.windows, [len(group.keys) for group in batch.groups])
            rows = [_rows(batch.base, some, group.delta) for some, group in zip(windows, batch.groups, strict=True)]
            batch.computed = torch.cat(rows)
            flat.index_copy_(0, batch.places, batch.computed.to(self._dtype).index_select(0, batch.sources))
        for group in batch.estimates:
            flat.index_copy_(0, group.places, group.rows(self._dtype))
        return model.merge(flat.view(*ids.shape, -1), places)

    def _run_part(self, batch: Batch, rows: slice) -> list[Batch]:
        return self.run(cut(batch, rows, self._device))


def _rows(base: LoadedModel, windows: Tensor, delta: SharedLora | None) -> Tensor:
    """float32 `[n, H]`, rounded exactly as a stored row is: an answer must not depend on which of the two it was."""
    count = len(windows)
    filled = torch.nn.functional.pad(windows, (0, 0, 0, -count % _WINDOW_BLOCK))
    states = torch.cat([base.model.lower(block, delta) for block in torch.split(filled, _WINDOW_BLOCK)])[:count]
    return round_rows(states.float(), base.spec.row_dtype)
