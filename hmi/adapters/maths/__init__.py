"""TODO"""

from __future__ import annotations

from hmi.adapters.maths.batched import BatchedAdapters
from hmi.adapters.maths.crossover import Method, choose, spared_bytes
from hmi.adapters.maths.heads import HeadPlan, HeadTensors, apply_head, mean_pool, pool
from hmi.adapters.maths.kernels import kernels_run_on, lora_segmented
from hmi.adapters.maths.plan import NO_LAYERS, QKV, AdapterPlan, order_key
from hmi.adapters.maths.segmented import SegmentedAdapters, SegmentedPlan
from hmi.adapters.maths.shared import SharedLora
from hmi.adapters.maths.single import (
    AdapterMaths,
    BottleneckTensors,
    LoraTensors,
    NoAdapters,
    Norm,
    ServingAdapters,
    SingleAdapter,
)
from hmi.adapters.maths.token_heads import TokenHeadPlan

__all__ = [
    "NO_LAYERS",
    "QKV",
    "AdapterMaths",
    "AdapterPlan",
    "BatchedAdapters",
    "BottleneckTensors",
    "HeadPlan",
    "HeadTensors",
    "LoraTensors",
    "Method",
    "NoAdapters",
    "Norm",
    "SegmentedAdapters",
    "SegmentedPlan",
    "ServingAdapters",
    "SharedLora",
    "SingleAdapter",
    "TokenHeadPlan",
    "apply_head",
    "choose",
    "kernels_run_on",
    "lora_segmented",
    "mean_pool",
    "order_key",
    "pool",
    "spared_bytes",
]
