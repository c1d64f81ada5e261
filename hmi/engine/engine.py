"""The engine's face: items in, a future of outcomes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.adapters.formats import load_adapter
from hmi.adapters.tiers import HostTier, PackedAdapter, pack_adapter
from hmi.devices import resolve_device, resolve_dtype
from hmi.engine.banks import Banks
from hmi.engine.config import EngineConfig, resolve_batch_tokens, resolve_device_threads
from hmi.engine.decode import DecodeLoop, DecodeLoops, SchedulerLimits, pool_size
from hmi.engine.deltas import Deltas
from hmi.engine.device import DeviceRunner
from hmi.engine.fetch import Fetcher
from hmi.engine.hosted import LoadedModel, LoadedModels, ModelSource
from hmi.engine.pipeline import Pipeline
from hmi.engine.releases import CapacityEvents
from hmi.engine.scheduler import BatchLimits
from hmi.engine.stats import Counters
from hmi.engine.trace import NO_TRACE, Tracer
from hmi.engine.work import Submission, adapter_key
from hmi.items import Item, ModelRef, Outcome
from hmi.knowledge import Function
from hmi.knowledge.counts import FrequencyCounter
from hmi.knowledge.lookup import KnowledgeTree
from hmi.stats import EngineStats, TreeUse

__all__ = ["Engine"]


class Engine:
    """Runs sequences of any tenants of any loaded base model together on one device.

    Background threads tokenise, look rows up and load adapters while the device computes. All methods
    may be called from any thread. `frequencies` holds what was looked up since it was last drained.
    """

    def __init__(self, config: EngineConfig, source: ModelSource, tracer: Tracer | None = None) -> None:
        self.device = resolve_device(config.device)
        self.dtype = resolve_dtype(config.dtype, self.device)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.frequencies = FrequencyCounter(config.frequency_max_keys, config.frequency_total_keys)
        self._prefetches = config.overlap.prefetch
        self._source = source
        self._tracer = tracer or NO_TRACE
        self._bases = LoadedModels(source, self.device, self.dtype, config.miss_cache_bytes, config.cache_bytes)
        self._deltas = Deltas(source, config.delta_bytes, self.device, self.dtype)
        self._host_tier = HostTier(config.host_adapter_bytes, self._load_adapter)
        self._banks = Banks(config.device_adapter_bytes, self.device, self.dtype)
        threads = torch.get_num_threads()
        self.device_threads = resolve_device_threads(config.device_threads, threads, self.device)
        self._device = DeviceRunner(
            self.device,
            self.dtype,
            self._banks,
            device_threads=self.device_threads,
            threads_each=max(1, threads // self.device_threads),
        )
        self._counters = Counters(self._tracer)

        # Of these alone, not of the engine: what holds its maker is freed late, and arenas are large.
        releases = CapacityEvents()
        copies = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        parts = self._host_tier, self._banks, self.frequencies, self._deltas, self.device, releases, copies
        device, banks, counters, dtype = self._device, self._banks, self._counters, self.dtype
        prefill_tokens = resolve_batch_tokens(config.batch_tokens, self.device)

        def generator(base: LoadedModel) -> DecodeLoop:
            limits = SchedulerLimits(
                pool_size(base.spec, dtype, config.cache_bytes), config.generated_rows, prefill_tokens
            )
            return DecodeLoop(base, Fetcher(*parts), device, banks, counters, limits, releases)

        self._generators = DecodeLoops(generator)
        self._pipeline = Pipeline(
            self._bases,
            Fetcher(*parts),
            self._device,
            self._counters,
            BatchLimits(
                resolve_batch_tokens(config.batch_tokens, self.device),
                config.batch_rows,
                config.padding_share,
                config.batch_cost,
            ),
            self.device_threads,
            config.queue_batches,
            config.overlap,
            self._generators,
            releases,
        )

    def submit(self, items: Sequence[Item], on_outcome: Callable[[], None] | None = None) -> Future[list[Outcome]]:
        """One outcome for each item, in order. The future itself fails only where the engine is closed.

        Args:
            on_outcome: Called after each outcome, on one of the engine's threads; must be quick and raise nothing.

        Raises `Cancelled` after `close`.
        """
        submission = Submission(items, on_outcome)
        self.prefetch(item.model for item in items)
        self._pipeline.submit(submission)
        return submission.future

    def prefetch(self, refs: Iterable[ModelRef]) -> None:
        """Start loading cold adapters into host memory, before a batch needs them. Returns at once."""
        if not self._prefetches:
            return
        # In the order of the items: what is asked for first is needed first.
        for key in dict.fromkeys(adapter_key(ref.base, ref.adapter) for ref in refs if ref.adapter):
            if key not in self._banks:
                self._host_tier.prefetch(key)

    def load_base(self, digest: str) -> None:
        """Load a base model now rather than at its first item. Raises what is wrong with it."""
        self._bases.get(digest)

    def publish_tree(self, base: str, tree: KnowledgeTree) -> None:
        """Batches formed from now on look up in `tree`; those under way end on the one they began with."""
        self._bases.publish(base, tree)

    def compute_rows(
        self, base: str, keys: NDArray[np.uint64], delta: str | None = None, *, fresh: bool = False
    ) -> NDArray[np.float32]:
        """Rows float32 `[n, H]` of packed windows, rounded as stored ones are. Batches run between chunks.

        Args:
            delta: Artifact digest of the domain delta to compute them with.
            fresh: Compute all of them, even those that are kept from batches which missed them.
        """
        hosted = self._bases.get(base)
        lora = None if delta is None else self._deltas.get(hosted, delta).lora
        if fresh:
            return self._device.compute_rows(hosted, keys, lora)
        rows = np.empty((len(keys), hosted.spec.hidden_size), np.float32)
        held, kept = hosted.miss_cache.read(Function(base, delta).digest, keys)
        rows[held] = kept
        rows[~held] = self._device.compute_rows(hosted, keys[~held], lora)
        return rows

    def estimate_error(self, base: str, delta: str | None = None) -> float | None:
        """How far, of a row's length, estimates of the function's rows are from them on average; None where the base,
        or the domain's delta, brings no estimator."""
        hosted = self._bases.get(base)
        estimator = hosted.model.estimator if delta is None else self._deltas.get(hosted, delta).estimator
        return None if estimator is None else estimator.error

    def busy(self) -> bool:
        """Whether anything that was submitted is not finished."""
        return self._pipeline.busy()

    def drop_adapter(self, digest: str) -> None:
        """Free an adapter's bytes in host and device memory, as soon as nothing uses it."""
        for base in self._bases.loaded():
            key = adapter_key(base.digest, digest)
            self._host_tier.drop(key)
            self._banks.drop(key)

    def stats(self) -> EngineStats:
        counters = self._counters
        return EngineStats(
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            device_threads=self.device_threads,
            seconds=time.monotonic() - counters.started,
            batches=counters.batches,
            sequences=counters.sequences,
            tokens=counters.tokens,
            padded_tokens=counters.padded_tokens,
            computed_windows=counters.computed_windows,
            busy_seconds=counters.busy(),
            host=self._host_tier.stats(),
            on_device=self._banks.stats(),
            trees=tuple(_tree_use(base) for base in self._bases.loaded()),
            preemptions=self._generators.preemptions,
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

    def _load_adapter(self, key: str) -> PackedAdapter:
        """Read, check against the base model, and pack. Raises `AdapterRefused` where it was not made for it."""
        with self._tracer.span("load-adapter", adapter=key):
            base, _, digest = key.partition("/")
            spec = self._bases.get(base).spec
            adapter = load_adapter(self._source.adapter_file(digest))
            adapter.validate(spec)
            return pack_adapter(adapter, spec.hidden_size, self.dtype, pin=self.device.type == "cuda")


def _tree_use(base: LoadedModel) -> TreeUse:
    tree = base.tree
    return TreeUse(base.digest, tree.number, tree.entries, tree.bytes, base.miss_cache.stats())
