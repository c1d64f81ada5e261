"""Third stage: what only the device does. One batch at a time, whole, on one version of everything."""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.bank import Bank, Resident
from hmi.adapters.batched import BatchedAdapters
from hmi.adapters.heads import apply_heads, mean_pool
from hmi.adapters.maths import AdapterMaths, NoAdapters
from hmi.engine.hosted import HostedBase
from hmi.engine.request import Task
from hmi.engine.turns import Turns
from hmi.engine.work import Batch
from hmi.errors import HmiError, Overloaded
from hmi.knowledge.ngrams import unpack
from hmi.knowledge.rows import round_trip

__all__ = ["DeviceRunner"]

_log = logging.getLogger(__name__)

_COMPUTE_CHUNK = 512  # windows in one turn of a tree build: what a batch may have to wait for
# A matrix product's last bits depend on how many rows it has, and where rows are rounded to int8 a last bit
# can become a whole step. Windows are computed in blocks of one size, the last one filled up, so that a row is the
# same whichever windows it was computed with.
_WINDOW_BLOCK = 64


class DeviceRunner:
    """Owns the device: the banks of resident adapters and the turns in which anything runs on it."""

    def __init__(self, device: torch.device, dtype: torch.dtype, adapter_bytes: int) -> None:
        self.device = device
        self.dtype = dtype
        self._adapter_bytes = adapter_bytes
        self._banks: dict[int, Bank] = {}
        self._turns = Turns()

    @torch.inference_mode()
    def run(self, batch: Batch) -> list[Batch]:
        """Fill `logits` float32 `[B, most labels]` and `pooled` float32 `[B, H]`, as its items ask.

        Returns the batch, or the parts that it was cut into: a batch that does not fit, or that fails for
        whatever reason, is run in halves, down to the sequence that is to blame. That one is settled with its
        error and is in none of the parts.
        """
        try:
            with self._turns.take():
                self._run(batch)
            return [batch]
        except Exception as error:  # noqa: BLE001 - one tenant's sequence must not cost others theirs
            # Without its traceback, which would keep the tensors of this attempt while the next one needs their room.
            failure = error.with_traceback(None)
        if len(batch.works) > 1:
            middle = len(batch.works) // 2
            return self.run(_slice(batch, slice(0, middle))) + self.run(_slice(batch, slice(middle, None)))
        batch.fail(_as_hmi(failure, len(batch.works[0].ids)))
        return []

    @torch.inference_mode()
    def compute_rows(self, base: HostedBase, keys: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Rows float32 `[n, H]` of packed windows, rounded as tables round them. Lets batches in between."""
        rows = np.empty((len(keys), base.spec.hidden_size), np.float32)
        for start in range(0, len(keys), _COMPUTE_CHUNK):
            windows = torch.from_numpy(unpack(keys[start : start + _COMPUTE_CHUNK]))
            with self._turns.take():
                rows[start : start + len(windows)] = self._rows(base, windows.to(self.device))
        return rows

    def drop_adapter(self, digest: str) -> None:
        """Free its rows now, or when the batch that runs with it has ended."""
        for bank in self.banks():
            bank.drop(digest)

    def banks(self) -> list[Bank]:
        return list(self._banks.values())

    def _run(self, batch: Batch) -> None:
        base = batch.base
        if batch.ids is None or batch.mask is None:
            raise ValueError("the batch was not fetched")
        mask = batch.mask.to(self.device, non_blocking=True)
        bank = self._bank(base)
        digests = [work.item.model.adapter for work in batch.works]
        pinned: list[str] = []
        try:
            residents: list[Resident | None] = []
            for digest, adapter in zip(digests, batch.adapters, strict=True):
                if digest is None or adapter is None:
                    residents.append(None)
                    continue
                residents.append(bank.ensure(digest, adapter, pin=True))
                pinned.append(digest)
            maths: AdapterMaths = BatchedAdapters(bank.arena, residents) if pinned else NoAdapters()
            hidden = base.model.upper(self._lower(batch), mask, maths)
            self._finish(batch, bank, residents, hidden, mask)
        finally:
            for digest in pinned:
                bank.unpin(digest)

    def _lower(self, batch: Batch) -> Tensor:
        model = batch.base.model
        if batch.hidden is None or batch.windows is None or batch.places is None or batch.sources is None:
            return model.embed(batch.ids.to(self.device, non_blocking=True))  # type: ignore[union-attr]
        hidden = batch.hidden.to(self.device, non_blocking=True)
        if len(batch.places):
            rows = torch.from_numpy(self._rows(batch.base, batch.windows.to(self.device))).to(self.device, self.dtype)
            flat = hidden.view(-1, hidden.shape[-1])
            flat.index_copy_(0, batch.places.to(self.device), rows.index_select(0, batch.sources.to(self.device)))
        return model.merge(hidden)

    def _rows(self, base: HostedBase, windows: Tensor) -> NDArray[np.float32]:
        count = len(windows)
        filled = torch.nn.functional.pad(windows, (0, 0, 0, -count % _WINDOW_BLOCK))
        states = torch.cat([base.model.lower(block) for block in torch.split(filled, _WINDOW_BLOCK)])[:count]
        # Rounded exactly as a stored row is: an answer must not depend on which of the two it was.
        return round_trip(states.float().cpu().numpy(), base.spec.row_dtype)

    def _finish(self, batch: Batch, bank: Bank, residents: list[Resident | None], hidden: Tensor, mask: Tensor) -> None:
        model = batch.base.model
        if any(work.item.task is Task.EMBED for work in batch.works):
            pooled = mean_pool(hidden.float(), mask)
            batch.pooled = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        if any(work.item.task is Task.CLASSIFY for work in batch.works):
            logits, _ = apply_heads(
                bank.arena, residents, hidden, mask, model.pool if batch.base.spec.has_pooler else None
            )
            batch.logits = logits.cpu().numpy()

    def _bank(self, base: HostedBase) -> Bank:
        """One arena for each hidden size; base models of one size share it."""
        hidden = base.spec.hidden_size
        if hidden not in self._banks:
            self._banks[hidden] = Bank(hidden, self._adapter_bytes, self.device, self.dtype)
        return self._banks[hidden]


def _as_hmi(error: Exception, tokens: int) -> HmiError:
    if isinstance(error, HmiError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return Overloaded(f"the device has no room for one sequence of {tokens} tokens")
    _log.error("a sequence of %d tokens failed on the device: %s: %s", tokens, type(error).__name__, error)
    return HmiError(f"the device failed on this input ({type(error).__name__})")


def _slice(batch: Batch, rows: slice) -> Batch:
    """Some rows of a fetched batch, at the same width."""
    part = Batch(batch.base, batch.works[rows], adapters=batch.adapters[rows])
    if batch.ids is None or batch.mask is None:
        raise ValueError("the batch was not fetched")
    part.ids, part.mask = batch.ids[rows], batch.mask[rows]
    if batch.hidden is None or batch.windows is None or batch.places is None or batch.sources is None:
        return part
    width = batch.ids.shape[1]
    first, last = rows.indices(len(batch.works))[:2]
    inside = (batch.places >= first * width) & (batch.places < last * width)
    part.hidden = batch.hidden[rows].clone()
    part.places = batch.places[inside] - first * width
    used, part.sources = torch.unique(batch.sources[inside], return_inverse=True)
    part.windows = batch.windows[used]
    return part
