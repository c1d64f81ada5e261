"""The engine: items in, a future of outcomes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.engine.config import EngineConfig, resolve_device_threads
from hmi.engine.decode import DecodeLoops
from hmi.engine.memory import LoadedModel, ModelSource, adapter_key
from hmi.engine.pipeline import Pipeline
from hmi.engine.resources import EngineResources
from hmi.engine.stages import DeviceRunner
from hmi.engine.tasks import Submission
from hmi.engine.trace import Tracer
from hmi.items import Item, ModelRef, Outcome
from hmi.knowledge import Function
from hmi.knowledge.lookup import KnowledgeTree
from hmi.stats import EngineStats, TreeUse


class Engine:
    """Runs sequences of any tenants of any loaded base model together on one device.

    Background threads tokenise, look rows up and load adapters while the device computes. All methods may be called
    from any thread.
    """

    def __init__(self, config: EngineConfig, source: ModelSource, tracer: Tracer | None = None) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self._prefetches = config.overlap.prefetch
        self._resources = EngineResources(config, source, tracer)
        self.frequencies = self._resources.frequencies  # what was looked up since it was last drained
        self.device, self.dtype = self._resources.device, self._resources.dtype
        threads = torch.get_num_threads()
        self.device_threads = resolve_device_threads(config.device_threads, threads, self.device)
        self._runner = DeviceRunner(
            self._resources, device_threads=self.device_threads, threads_each=max(1, threads // self.device_threads)
        )
        self._decode_loops = DecodeLoops(self._resources, self._runner, config)
        self._pipeline = Pipeline(self._resources, self._runner, self._decode_loops, config, self.device_threads)

    def submit(self, items: Sequence[Item], on_outcome: Callable[[], None] | None = None) -> Future[list[Outcome]]:
        """One outcome for each item, in order. Raises `Cancelled` after `close`.

        `on_outcome` is called after each outcome, on one of the engine's threads; it must be quick and raise nothing.
        """
        submission = Submission(items, on_outcome)
        self.prefetch(item.model for item in items)
        self._pipeline.submit(submission)
        return submission.future

    def prefetch(self, refs: Iterable[ModelRef]) -> None:
        """Start loading cold adapters into host memory, before a batch needs them. Returns at once."""
        if self._prefetches:
            # In the order of the items, which is the order in which they are needed.
            for key in dict.fromkeys(adapter_key(ref.base, ref.adapter) for ref in refs if ref.adapter):
                self._resources.adapters.prefetch(key)

    def load_base(self, digest: str) -> None:
        """Load a base model now rather than at its first item. Raises what is wrong with it."""
        self._resources.models.get(digest)

    def publish_tree(self, base: str, tree: KnowledgeTree) -> None:
        """Batches formed from now on look up in `tree`; others end on the tree that they began with."""
        self._resources.models.publish(base, tree)

    def compute_rows(
        self, base: str, keys: NDArray[np.uint64], delta: str | None = None, *, fresh: bool = False
    ) -> NDArray[np.float32]:
        """Rows float32 `[n, H]` of packed windows, rounded as stored ones are. Batches run between chunks.

        `delta` is the artifact digest of the domain delta. `fresh` computes even rows that the miss cache holds.
        """
        loaded = self._resources.models.get(base)
        lora = None if delta is None else self._resources.deltas.get(loaded, delta).lora
        if fresh:
            return self._runner.compute_rows(loaded, keys, lora)
        rows = np.empty((len(keys), loaded.spec.hidden_size), np.float32)
        held, kept = loaded.miss_cache.read(Function(base, delta).digest, keys)
        rows[held] = kept
        rows[~held] = self._runner.compute_rows(loaded, keys[~held], lora)
        return rows

    def estimate_error(self, base: str, delta: str | None = None) -> float | None:
        """The mean error of the function's estimated rows, relative to a row's length; None where the base, or the
        domain's delta, brings no estimator."""
        loaded = self._resources.models.get(base)
        estimator = self._resources.deltas.estimator(loaded, delta)
        return None if estimator is None else estimator.error

    def busy(self) -> bool:
        """Whether any submission lacks outcomes."""
        return self._pipeline.busy()

    def drop_adapter(self, digest: str) -> None:
        """Free an adapter's bytes in host and device memory, as soon as nothing uses it."""
        for base in self._resources.models.loaded():
            self._resources.adapters.drop(adapter_key(base.digest, digest))

    def stats(self) -> EngineStats:
        counters, adapters = self._resources.counters, self._resources.adapters
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
            host=adapters.host.stats(),
            on_device=adapters.device_stats(),
            trees=tuple(_tree_use(base) for base in self._resources.models.loaded()),
            preemptions=self._decode_loops.preemptions,
        )

    def close(self, *, drain: bool = True) -> None:
        """Stop; with `drain` everything submitted is run first, else what waits is settled as `Cancelled`."""
        self._pipeline.close(drain=drain)
        self._resources.adapters.host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=error is None)


def _tree_use(base: LoadedModel) -> TreeUse:
    tree = base.tree
    return TreeUse(base.digest, tree.number, tree.entries, tree.bytes, base.miss_cache.stats())
