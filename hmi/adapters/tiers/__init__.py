"""Where adapters wait to be used: host memory (`HostTier`) and device memory (`DeviceTier`), each with a byte budget.

An adapter is packed once into rows as wide as the model's hidden states (`layout.py`), so that adapters of any shape
share one arena. Both tiers evict by `EvictionPolicy` (LRFU) and never evict a pinned adapter.
"""

from __future__ import annotations

from hmi.adapters.tiers.device import DeviceTier, Resident
from hmi.adapters.tiers.host import HostTier
from hmi.adapters.tiers.layout import (
    BodyLayout,
    BottleneckSpan,
    HeadLayout,
    Labels,
    LoraSpan,
    PackedAdapter,
    pack_adapter,
)

__all__ = [
    "BodyLayout",
    "BottleneckSpan",
    "DeviceTier",
    "HeadLayout",
    "HostTier",
    "Labels",
    "LoraSpan",
    "PackedAdapter",
    "Resident",
    "pack_adapter",
]
