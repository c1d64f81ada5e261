"""Second stage: everything a batch needs from host memory and disk, while the device runs another.

Windows are looked up in the tree that is published when the batch is formed; what the tree does not
hold becomes the batch's list of unique windows to compute, or a shorter n-gram's row, as the model's
miss policy says. Adapters come from the host tier, from disk where they are cold.
"""

from __future__ import annotations

import logging
from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.adapters.adapter import Adapter
from hmi.adapters.tiers import HostTier
from hmi.engine.hosted import HostedBase
from hmi.engine.request import Task
from hmi.engine.work import Batch, Work, as_hmi
from hmi.errors import HmiError, InvalidInput, Overloaded
from hmi.knowledge.frequency import FrequencyCounter
from hmi.knowledge.ngrams import unpack, window_keys
from hmi.knowledge.tree import KnowledgeTree
from hmi.spec import MissPolicy

__all__ = ["Fetcher"]

_log = logging.getLogger(__name__)


class Fetcher:
    """Fills batches; called from one pipeline thread."""

    def __init__(
        self, host_tier: HostTier, frequencies: FrequencyCounter, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._host_tier = host_tier
        self._frequencies = frequencies
        self._dtype = dtype
        self._fitting: set[tuple[str, str]] = set()  # pairs of adapter and base that were checked
        # The device stage waits for nothing but a copy: pinned memory is read by the GPU on its own.
        self._pin = device.type == "cuda"

    def fetch(self, batch: Batch) -> list[Work]:
        """Take adapters, then fill ids, mask and, for k > 0, rows and missing windows.

        A row whose adapter cannot be had is settled with the reason and leaves the batch. Rows whose
        adapters do not fit into host memory beside those in use leave it too and are returned: they can
        be fetched when other batches have given theirs back.
        """
        deferred = self._take_adapters(batch)
        if not batch.works:
            return deferred
        lengths = np.array([len(work.ids) for work in batch.works])
        width = int(lengths.max())
        real = np.arange(width) < lengths[:, None]  # [B, T]
        ids = np.full(real.shape, batch.base.spec.pad_token_id, np.int64)
        ids[real] = np.concatenate([work.ids for work in batch.works])
        batch.ids, batch.mask = self._tensor(ids), self._tensor(real)
        if batch.base.spec.k:
            self._look_up(batch, lengths, real)
        return deferred

    def release(self, batch: Batch) -> list[str]:
        """Give the batch's adapters back to the host tier; twice is once. Gives those that were dropped meanwhile."""
        dropped = []
        while batch.held:
            digest = batch.held.pop()
            if self._host_tier.release(digest):
                dropped.append(digest)
        return dropped

    def _take_adapters(self, batch: Batch) -> list[Work]:
        kept, deferred = list[Work](), list[Work]()
        for work in batch.works:
            try:
                adapter = self._take_adapter(work)
            except Overloaded:
                deferred.append(work)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one tenant's file is not its batch-mates'
                if not isinstance(error, HmiError):
                    _log.exception("adapter %s could not be read", work.item.model.adapter)
                work.fail(as_hmi(error))
            else:
                kept.append(work)
                batch.adapters.append(adapter)
                if work.item.model.adapter:
                    batch.held.append(work.item.model.adapter)
        batch.works = kept
        return deferred

    def _take_adapter(self, work: Work) -> Adapter | None:
        """The sequence's adapter, acquired; nothing is held where this raises."""
        digest = work.item.model.adapter
        adapter = self._host_tier.acquire(digest) if digest else None
        try:
            if digest and adapter:
                self._check_fit(digest, adapter, work.base)
            if work.item.task is Task.CLASSIFY and (adapter is None or adapter.head is None):
                raise InvalidInput("the model has no classification head; ask it for embeddings", param="model")
        except BaseException:
            if digest:
                self._host_tier.release(digest)
            raise
        return adapter

    def _check_fit(self, digest: str, adapter: Adapter, base: HostedBase) -> None:
        """Raises `AdapterRefused` where the adapter was not made for this base model."""
        if (digest, base.digest) not in self._fitting:
            adapter.validate(base.spec)
            self._fitting.add((digest, base.digest))

    def _look_up(self, batch: Batch, lengths: NDArray[np.int64], real: NDArray[np.bool_]) -> None:
        spec, tree = batch.base.spec, batch.base.tree
        keys = window_keys(np.concatenate([work.ids for work in batch.works]), lengths)
        rows = np.zeros((len(keys), spec.hidden_size), np.float32)
        found = np.zeros(len(keys), bool)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        for (domain, policy), members in _by_domain(batch.works).items():
            places = np.concatenate([np.arange(starts[m], starts[m + 1]) for m in members])
            self._look_up_domain(batch.base.digest, tree, domain, policy, keys, places, rows, found)
        missing = np.flatnonzero(~found)
        unique, sources = np.unique(keys[missing], return_inverse=True)
        hidden = torch.zeros((*real.shape, spec.hidden_size), dtype=self._dtype, pin_memory=self._pin)
        flat = np.flatnonzero(real.ravel())  # where in B * T each real token lies
        hidden.view(-1, spec.hidden_size).index_copy_(0, torch.from_numpy(flat), torch.from_numpy(rows).to(self._dtype))
        batch.hidden = hidden
        batch.windows = self._tensor(unpack(unique))
        batch.places = self._tensor(flat[missing])
        batch.sources = self._tensor(sources.reshape(-1))

    def _look_up_domain(
        self,
        base: str,
        tree: KnowledgeTree,
        domain: str,
        policy: MissPolicy,
        keys: NDArray[np.uint64],
        places: NDArray[np.int64],
        rows: NDArray[np.float32],
        found: NDArray[np.bool_],
    ) -> None:
        wanted = keys[places]
        # Nothing was published yet, or the domain is younger than the tree: all is missing, and worth counting.
        if tree.number == 0 or domain not in tree.parents:
            self._frequencies.count(base, domain, wanted, np.zeros(len(wanted), bool), 0)
            return
        lookup = (tree.backoff if policy is MissPolicy.BACKOFF else tree.lookup)(domain, wanted)
        self._frequencies.count(base, domain, wanted, lookup.exact, tree.number)
        rows[places] = lookup.rows
        found[places] = lookup.hit

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory() if self._pin else tensor


def _by_domain(works: list[Work]) -> dict[tuple[str, MissPolicy], list[int]]:
    grouped: dict[tuple[str, MissPolicy], list[int]] = defaultdict(list)
    for row, work in enumerate(works):
        grouped[work.item.model.domain, work.item.model.miss_policy].append(row)
    return grouped
