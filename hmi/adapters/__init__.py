"""An adapter in host memory: plain float32 arrays whose shapes, values and labels are checked against a base model.

Nothing here needs torch. `Adapter` is everything that belongs to one tenant: LoRA pairs or bottlenecks on the upper
layers, and a head. Start reading in `adapter.py`. The subpackages read and write adapter files (`formats`), keep
adapters in host and device memory (`tiers`) and apply them to a batch (`maths`).
"""

from __future__ import annotations

from hmi.adapters.adapter import Adapter, AdapterKind
from hmi.adapters.head import MAX_TOKEN_LABELS, Head, Pooling, Transform, label_fault
from hmi.adapters.weights import Activation, Array, Bottleneck, Estimator, Lora

__all__ = [
    "MAX_TOKEN_LABELS",
    "Activation",
    "Adapter",
    "AdapterKind",
    "Array",
    "Bottleneck",
    "Estimator",
    "Head",
    "Lora",
    "Pooling",
    "Transform",
    "label_fault",
]
