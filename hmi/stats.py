"""Counters of an engine and its memory: plain values for status pages, logs and benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["EngineStats", "MissCacheStats", "TierStats", "TreeUse"]


@dataclass(frozen=True, slots=True)
class TierStats:
    """How full a tier of adapters is, and how often it held what was looked up."""

    entries: int = 0
    bytes: int = 0
    budget_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0

    @classmethod
    def total(cls, tiers: Iterable[Self]) -> Self:
        """All tiers together."""
        values = [dataclasses.astuple(tier) for tier in tiers]
        return cls(*map(sum, zip(*values, strict=True)))


@dataclass(frozen=True, slots=True)
class MissCacheStats:
    entries: int  # rows held
    bytes: int  # of rows and index
    budget_bytes: int
    lookups: int  # windows looked up
    hits: int  # and found
    evictions: int  # rows that left for others


@dataclass(frozen=True, slots=True)
class TreeUse:
    """The tree that an engine looks up in for one base model."""

    base: str
    number: int
    entries: int
    bytes: int
    miss_cache: MissCacheStats | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counts since start."""

    device: str
    dtype: str
    device_threads: int
    seconds: float
    batches: int
    sequences: int
    tokens: int
    padded_tokens: int
    computed_windows: int
    busy_seconds: dict[str, float]  # by stage, out of `seconds`; the device's out of `device_threads` times as many
    host: TierStats
    on_device: TierStats
    trees: tuple[TreeUse, ...]
    preemptions: int = 0  # sequences that lost their keys and values to others while they were generated

    @property
    def padding_share(self) -> float:
        """Share of the computed tokens that were padding."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self)
