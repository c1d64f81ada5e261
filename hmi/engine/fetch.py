"""Second stage: everything a batch needs from disk and host memory is brought to the device, while it runs another.

Adapters are pinned in the device's bank, copied from the host tier where they are not there yet. Windows are looked
up in the tree that is published when the batch is formed; see `lookup`.
"""

from __future__ import annotations

import contextlib
import logging

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.adapters import Pooling
from hmi.adapters.tiers import DeviceTier, HostTier, PackedAdapter, Resident
from hmi.engine.arrange import order_rows, plan_adapters
from hmi.engine.banks import Banks
from hmi.engine.deltas import Deltas
from hmi.engine.hosted import LoadedModel
from hmi.engine.lookup import WindowLookup
from hmi.engine.releases import CapacityEvents
from hmi.engine.work import Batch, SequenceTask, to_hmi_error
from hmi.errors import HmiError, InvalidInput, Overloaded, StorageFull, TooLarge
from hmi.items import Task
from hmi.knowledge import Keys, window_keys
from hmi.knowledge.counts import FrequencyCounter

__all__ = ["Fetcher"]

_log = logging.getLogger(__name__)


class Fetcher:
    """Fills batches; called from one thread. There is one for each thread that fetches.

    Args:
        releases: Of all fetchers of these tiers.
        stream: The one on which all of them copy to a GPU, beside its computing: what one of them brought there is
            there for whoever waits for what another has sent since.
    """

    def __init__(
        self,
        host_tier: HostTier[PackedAdapter],
        banks: Banks,
        frequencies: FrequencyCounter,
        deltas: Deltas,
        device: torch.device,
        releases: CapacityEvents,
        stream: torch.cuda.Stream | None,
    ) -> None:
        self._host_tier = host_tier
        self._banks = banks
        self._deltas = deltas
        self._device = device
        self._releases = releases
        self._stream = stream
        self._lookup = WindowLookup(frequencies, deltas, self._send)

    @torch.inference_mode()
    def fetch(self, batch: Batch) -> list[SequenceTask]:
        """Pin adapters, then fill ids, mask, plans and, for k > 0, rows and missing windows.

        A row whose adapter cannot be had is settled with the reason and leaves the batch. Rows whose adapters do
        not fit into a tier beside those in use leave it too and are returned: they can be fetched when somebody has
        given theirs back (`CapacityEvents`).
        """
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            deferred = self._take_adapters(batch)
            if batch.works:
                order_rows(batch)
                self._lay_out(batch)
                plan_adapters(batch, self._device)
            if self._stream:
                batch.ready = self._stream.record_event()
        return deferred

    @torch.inference_mode()
    def fetch_next(self, batch: Batch, ids: NDArray[np.int64], keys: Keys) -> None:
        """Fill a batch of sequences that are read on by one token each: ids and, for k > 0, rows and missing windows.
        Their adapters are resident and pinned.

        Args:
            ids: Of the new tokens `[B]`; keys: their windows.
        """
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            real = np.ones((len(ids), 1), np.bool_)
            batch.ids, batch.mask, batch.full = self._send(ids[:, None]), self._send(real), True
            if batch.base.spec.k:
                self._lookup.fill(batch, keys, np.ones(len(ids), np.int64), real)
            if batch.plan is None:
                plan_adapters(batch, self._device)
            if self._stream:
                batch.ready = self._stream.record_event()

    def pin(self, batch: Batch, row: int) -> str | None:
        """Pin a row's adapter beyond the end of its batch; what to give to `unpin`."""
        key = batch.works[row].adapter
        if key is not None:
            self._banks.get(batch.base.spec.hidden_size).find(key)
        return key

    def unpin(self, base: LoadedModel, key: str | None) -> None:
        if key is not None:
            self._banks.get(base.spec.hidden_size).unpin(key)
            self._releases.add()

    def release(self, batch: Batch) -> None:
        """Let the bank have the batch's adapters back; twice is once."""
        if not batch.pinned:
            return
        bank = self._banks.get(batch.base.spec.hidden_size)
        while batch.pinned:
            bank.unpin(batch.pinned.pop())
        self._releases.add()

    def _take_adapters(self, batch: Batch) -> list[SequenceTask]:
        bank = self._banks.get(batch.base.spec.hidden_size)
        kept, deferred = list[SequenceTask](), list[SequenceTask]()
        taken: dict[str, Resident] = {}
        deltas: dict[str, Exception | None] = {}
        for work in batch.works:
            room = False
            try:
                resident = self._take_adapter(work, bank, taken, batch.pinned)
                room = True
                if work.item.task is Task.CLASSIFY:
                    _check_head(work, resident)
                self._check_delta(work, deltas)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one tenant's file is not its batch-mates'
                if not room and _may_pass(error):
                    deferred.append(work)
                    continue
                if not isinstance(error, HmiError):
                    _log.exception("adapter %s could not be read", work.item.model.adapter)
                work.fail(to_hmi_error(error))
            else:
                kept.append(work)
                batch.residents.append(resident)
        batch.works = kept
        return deferred

    def _take_adapter(
        self, work: SequenceTask, bank: DeviceTier, taken: dict[str, Resident], pinned: list[str]
    ) -> Resident | None:
        """The sequence's adapter in the bank, pinned once for the whole batch."""
        key = work.adapter
        if key is None or key in taken:
            return taken[key] if key else None
        resident = bank.find(key)
        if resident is not None:
            self._host_tier.touch(key)
        else:
            resident = self._bring(key, bank)
        pinned.append(key)
        taken[key] = resident
        return resident

    def _bring(self, key: str, bank: DeviceTier) -> Resident:
        """Copy an adapter to the device, and pin it there."""
        adapter = self._host_tier.acquire(key)
        waits = False
        try:
            return bank.insert(key, adapter)
        except Overloaded as error:
            waits = _may_pass(error)
            raise
        finally:
            if self._host_tier.release(key):
                bank.drop(key)  # dropped meanwhile, and this brought it back to the device
            # Somebody may have found no room in host memory beside it. Where this one waits for room on the device,
            # the word of that comes to both; to say it here would have it try again at once, and for ever.
            if not waits:
                self._releases.add()

    def _check_delta(self, work: SequenceTask, checked: dict[str, Exception | None]) -> None:
        """Have a delta that is damaged fail its own rows alone. Each is looked at once for the whole batch: where they
        have no room beside each other, every look is a load."""
        delta = work.item.model.delta
        if delta is None:
            return
        if delta not in checked:
            try:
                self._deltas.get(work.base, delta)
                checked[delta] = None
            except Exception as error:  # noqa: BLE001 - raised below, for each of its rows
                checked[delta] = error
        if (wrong := checked[delta]) is not None:
            raise wrong

    def _lay_out(self, batch: Batch) -> None:
        lengths = np.array([len(work.ids) for work in batch.works])
        real = np.arange(batch.width) < lengths[:, None]  # [B, T]
        ids = np.full(real.shape, batch.base.spec.pad_token_id, np.int64)
        ids[real] = np.concatenate([work.ids for work in batch.works])
        batch.ids, batch.mask, batch.full = self._send(ids), self._send(real), bool(real.all())
        if batch.base.spec.k:
            keys = window_keys(ids[real], lengths, looks_back=batch.base.spec.family.decodes)
            self._lookup.fill(batch, keys, lengths, real)

    def _send(self, array: NDArray[np.generic]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._stream is None:
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


def _may_pass(error: Exception) -> bool:
    """Whether an adapter found no room beside those in use: there will be some when they are given back."""
    return isinstance(error, Overloaded) and not isinstance(error, TooLarge | StorageFull)


def _check_head(work: SequenceTask, resident: Resident | None) -> None:
    """Raises `InvalidInput` unless the adapter can answer with classes."""
    if resident is None or resident.head is None:
        raise InvalidInput("the model has no classification head; ask it for embeddings", param="model")
    if resident.head.pooling is Pooling.TOKENS and work.item.text is None:
        raise InvalidInput("the model labels the words of a text, and token ids are not one; send text", param="input")
