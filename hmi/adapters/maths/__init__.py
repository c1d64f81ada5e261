"""Adapters applied to a batch: one adapter with gradients for training, many tenants' adapters at once for serving.

`single.py` is the plain form, and the reference that the others are tested against. `serving.py` plans a batch:
gathered products on a CPU (`plan.py`, `gathered.py`), Triton kernels on CUDA (`kernel_adapters.py`, `kernels.py`).
`heads.py` applies the heads of a batch.
"""

from __future__ import annotations

from hmi.adapters.maths.crossover import Method, choose_method, saved_bytes
from hmi.adapters.maths.heads import HeadPlan, HeadTensors, TokenHeadPlan, apply_head, mean_pool, pool
from hmi.adapters.maths.kernels import apply_segmented, kernels_run_on
from hmi.adapters.maths.plan import QKV, order_key
from hmi.adapters.maths.serving import AdapterPlan, ServingAdapters, bind_adapters, plan_adapters
from hmi.adapters.maths.single import (
    BottleneckTensors,
    LoraTensors,
    NoAdapters,
    Norm,
    SharedLora,
    SingleAdapter,
    TrainingAdapters,
)

__all__ = [
    "QKV",
    "AdapterPlan",
    "BottleneckTensors",
    "HeadPlan",
    "HeadTensors",
    "LoraTensors",
    "Method",
    "NoAdapters",
    "Norm",
    "ServingAdapters",
    "SharedLora",
    "SingleAdapter",
    "TokenHeadPlan",
    "TrainingAdapters",
    "apply_head",
    "apply_segmented",
    "bind_adapters",
    "choose_method",
    "kernels_run_on",
    "mean_pool",
    "order_key",
    "plan_adapters",
    "pool",
    "saved_bytes",
]
