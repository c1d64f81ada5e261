"""TODO"""

from __future__ import annotations

from hmi.adapters.adapter import (
    Activation,
    Adapter,
    AdapterKind,
    Array,
    Bottleneck,
    Estimator,
    Head,
    Lora,
    Pooling,
    Transform,
)
from hmi.adapters.weights import MAX_TOKEN_LABELS, label_fault

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
