"""Counters that an engine and its tiers report: plain values for status pages, logs and benchmarks."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["EngineStats", "MissCacheStats", "TierStats", "TreeUse"]


@dataclass(frozen=True, slots=True)
class TierStats:
    """How full a tier is and how often it had what was asked for."""

    entries: int
    bytes: int
    budget_bytes: int
    hits: int
    misses: int
    evictions: int

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class MissCacheStats:
    """What an miss_cache holds, and what it did since it was made.

    Attributes:
        entries: Rows held.
        bytes: What they take, index included.
        lookups, hits: Windows that were looked up, and those that were found.
        evictions: Rows that had to leave for others.
    """

    entries: int
    bytes: int
    budget_bytes: int
    lookups: int
    hits: int
    evictions: int


@dataclass(frozen=True, slots=True)
class TreeUse:
    """The tree that an engine looks up in for one base model.

    `miss_cache` is of the rows that the tree lacked, and that were kept once they were computed.
    """

    base: str
    number: int
    entries: int
    bytes: int
    miss_cache: MissCacheStats | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counts since start.

    `preemptions`: texts that were put back while they were continued, for want of room for their keys and values.
    `busy_seconds` are by stage, to be held against `seconds`; the device's against `device_threads` times as much.
    """

    device: str
    dtype: str
    device_threads: int
    seconds: float
    batches: int
    sequences: int
    tokens: int
    padded_tokens: int
    computed_windows: int
    busy_seconds: dict[str, float]
    host: TierStats
    on_device: TierStats
    trees: tuple[TreeUse, ...]
    preemptions: int = 0

    @property
    def padding_share(self) -> float:
        """Share of the tokens computed that were padding."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self)
