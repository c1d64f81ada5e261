"""The engine's face: items in, a future of outcomes out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.adapters.adapter import Adapter
from hmi.adapters.canonical import load_adapter
from hmi.adapters.tiers import HostTier, TierStats
from hmi.engine.config import EngineConfig, resolve_device, resolve_dtype
from hmi.engine.device import DeviceRunner
from hmi.engine.fetch import Fetcher
from hmi.engine.hosted import HostedBases, ModelSource
from hmi.engine.pipeline import Pipeline
from hmi.engine.request import Item, ModelRef, Outcome
from hmi.engine.scheduler import BatchLimits
from hmi.engine.stats import Counters, EngineStats, TreeUse
from hmi.engine.work import Submission
from hmi.knowledge.frequency import FrequencyCounter
from hmi.knowledge.tree import KnowledgeTree

__all__ = ["Engine"]


class Engine:
    """Runs sequences of any tenants of any loaded base model together on one device.

    Background threads tokenise, look rows up and load adapters while the device computes. All methods
    may be called from any thread. `frequencies` holds what was looked up since it was last drained.
    """

    def __init__(self, config: EngineConfig, source: ModelSource) -> None:
        self.device = resolve_device(config.device)
        self.dtype = resolve_dtype(config.dtype, self.device)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.frequencies = FrequencyCounter(config.frequency_max_keys)
        self._source = source
        self._bases = HostedBases(source, self.device, self.dtype)
        self._host_tier = HostTier(config.host_adapter_bytes, self._load_adapter)
        self._device = DeviceRunner(self.device, self.dtype, config.device_adapter_bytes)
        self._counters = Counters()
        self._pipeline = Pipeline(
            self._bases,
            Fetcher(self._host_tier, self.frequencies, self.device, self.dtype),
            self._device,
            self._counters,
            BatchLimits(config.batch_tokens, config.batch_rows, config.padding_share),
            config.queue_batches,
        )

    def submit(self, items: Sequence[Item]) -> Future[list[Outcome]]:
        """One outcome for each item, in order. The future itself fails only where the engine is closed.

        Raises `Cancelled` after `close`.
        """
        submission = Submission(items)
        self.prefetch({item.model for item in items})
        self._pipeline.submit(submission)
        return submission.future

    def prefetch(self, refs: Iterable[ModelRef]) -> None:
        """Start loading cold adapters into host memory, before a batch needs them. Returns at once."""
        for digest in {ref.adapter for ref in refs if ref.adapter}:
            self._host_tier.prefetch(digest)

    def load_base(self, digest: str) -> None:
        """Load a base model now rather than at its first item. Raises what is wrong with it."""
        self._bases.get(digest)

    def publish_tree(self, base: str, tree: KnowledgeTree) -> None:
        """Batches formed from now on look up in `tree`; those under way end on the one they began with."""
        self._bases.publish(base, tree)

    def compute_rows(self, base: str, keys: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Rows float32 `[n, H]` of packed windows, rounded as stored ones are. Batches run between chunks."""
        return self._device.compute_rows(self._bases.get(base), keys)

    def drop_adapter(self, digest: str) -> None:
        """Free an adapter's bytes in host and device memory, as soon as nothing uses it."""
        self._host_tier.drop(digest)
        self._device.drop_adapter(digest)

    def stats(self) -> EngineStats:
        counters = self._counters
        trees = [(base.digest, base.tree) for base in self._bases.loaded()]
        return EngineStats(
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            seconds=time.monotonic() - counters.started,
            batches=counters.batches,
            sequences=counters.sequences,
            tokens=counters.tokens,
            padded_tokens=counters.padded_tokens,
            computed_windows=counters.computed_windows,
            busy_seconds=counters.busy(),
            host=self._host_tier.stats(),
            on_device=_sum_of([bank.stats() for bank in self._device.banks()]),
            trees=tuple(TreeUse(base, tree.number, tree.entries, tree.bytes) for base, tree in trees),
        )

    def close(self, *, drain: bool = True) -> None:
        """Stop; with `drain` everything submitted is run first, else what waits is settled as `Cancelled`."""
        self._pipeline.close(drain=drain)
        self._host_tier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=error is None)

    def _load_adapter(self, digest: str) -> Adapter:
        return load_adapter(self._source.adapter_file(digest))


def _sum_of(stats: list[TierStats]) -> TierStats:
    return TierStats(
        entries=sum(s.entries for s in stats),
        bytes=sum(s.bytes for s in stats),
        budget_bytes=sum(s.budget_bytes for s in stats),
        hits=sum(s.hits for s in stats),
        misses=sum(s.misses for s in stats),
        evictions=sum(s.evictions for s in stats),
    )
