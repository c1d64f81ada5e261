"""TODO"""

from __future__ import annotations

from hmi.adapters.tiers.bank import Bank, Resident
from hmi.adapters.tiers.host import HostTier
from hmi.adapters.tiers.layout import BodyLayout, BottleneckSpan, HeadLayout, LoraSpan
from hmi.adapters.tiers.packed import Labels, PackedAdapter, pack_adapter

__all__ = [
    "Bank",
    "BodyLayout",
    "BottleneckSpan",
    "HeadLayout",
    "HostTier",
    "Labels",
    "LoraSpan",
    "PackedAdapter",
    "Resident",
    "pack_adapter",
]
