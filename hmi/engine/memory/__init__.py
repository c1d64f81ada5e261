"""What an engine keeps in memory, under budgets: base models, adapters, domain deltas.

`AdapterMemory` holds the adapters of all tenants, in host memory and on the device. An adapter that finds no room
beside those in use is `Deferred` until `CapacityEvents` says that others were released. `LoadedModels` has the base
models with their trees and miss caches, `Deltas` what missing windows of a domain are computed with.
"""

from __future__ import annotations

from hmi.engine.memory.adapters import AdapterMemory, adapter_key, may_pass, split_key
from hmi.engine.memory.capacity import CapacityEvents, Deferred
from hmi.engine.memory.deltas import Deltas
from hmi.engine.memory.models import LoadedModel, LoadedModels, ModelSource

__all__ = [
    "AdapterMemory",
    "CapacityEvents",
    "Deferred",
    "Deltas",
    "LoadedModel",
    "LoadedModels",
    "ModelSource",
    "adapter_key",
    "may_pass",
    "split_key",
]
