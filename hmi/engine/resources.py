"""What all threads of an engine share: device, memory and counters."""

from __future__ import annotations

from functools import partial

import torch

from hmi.adapters.formats import load_adapter
from hmi.adapters.tiers import PackedAdapter, pack_adapter
from hmi.devices import resolve_device, resolve_dtype
from hmi.engine.config import EngineConfig
from hmi.engine.counters import Counters
from hmi.engine.memory import AdapterMemory, CapacityEvents, Deltas, LoadedModels, ModelSource, split_key
from hmi.engine.trace import NO_TRACE, Tracer
from hmi.knowledge.counts import FrequencyCounter


class EngineResources:
    """Holds no reference to the engine: a circle would be freed late, and arenas are large."""

    def __init__(self, config: EngineConfig, source: ModelSource, tracer: Tracer | None) -> None:
        self.device = resolve_device(config.device)
        self.dtype = resolve_dtype(config.dtype, self.device)
        self.counters = Counters(tracer or NO_TRACE)
        self.frequencies = FrequencyCounter(config.frequency_max_keys, config.frequency_total_keys)
        self.models = LoadedModels(source, self.device, self.dtype, config)
        self.deltas = Deltas(source, config.delta_bytes, self.device, self.dtype)
        self.capacity = CapacityEvents()
        load = partial(_load_packed, source, self.models, self.device, self.dtype, self.counters.tracer)
        self.adapters = AdapterMemory(config, self.device, self.dtype, load, self.capacity)
        # All threads copy to a GPU on this stream, beside its computing: an event on it says that whatever any of them
        # sent before has arrived.
        self.copy_stream = (
            torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            if self.device.type == "cuda"
            else None
        )


def _load_packed(
    source: ModelSource, models: LoadedModels, device: torch.device, dtype: torch.dtype, tracer: Tracer, key: str
) -> PackedAdapter:
    """Read an adapter, check it against its base model and pack it. Raises `AdapterRefused` where it does not fit."""
    with tracer.span("load-adapter", adapter=key):
        base, digest = split_key(key)
        spec = models.get(base).spec
        adapter = load_adapter(source.adapter_file(digest))
        adapter.validate(spec)
        return pack_adapter(adapter, spec.hidden_size, dtype, pin=device.type == "cuda")
