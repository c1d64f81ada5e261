"""The device's adapter banks: one arena for each hidden size; base models of one size share it."""

from __future__ import annotations

import threading

import torch

from hmi.adapters.tiers import DeviceTier
from hmi.stats import TierStats

__all__ = ["Banks"]


class Banks:
    """Made when a base model of their size is first used. Thread-safe.

    Args:
        budget_bytes: Of each arena.
    """

    def __init__(self, budget_bytes: int, device: torch.device, dtype: torch.dtype) -> None:
        self._budget_bytes = budget_bytes
        self._device = device
        self._dtype = dtype
        self._banks: dict[int, DeviceTier] = {}
        self._lock = threading.Lock()

    def get(self, hidden_size: int) -> DeviceTier:
        with self._lock:
            if hidden_size not in self._banks:
                self._banks[hidden_size] = DeviceTier(hidden_size, self._budget_bytes, self._device, self._dtype)
            return self._banks[hidden_size]

    def __contains__(self, key: str) -> bool:
        return any(key in bank for bank in self._all())

    def drop(self, key: str) -> None:
        """Free the adapter's rows now, or when the batch that runs with it has ended."""
        for bank in self._all():
            bank.drop(key)

    def stats(self) -> TierStats:
        """All banks together."""
        stats = [bank.stats() for bank in self._all()]
        return TierStats(
            entries=sum(s.entries for s in stats),
            bytes=sum(s.bytes for s in stats),
            budget_bytes=sum(s.budget_bytes for s in stats),
            hits=sum(s.hits for s in stats),
            misses=sum(s.misses for s in stats),
            evictions=sum(s.evictions for s in stats),
        )

    def _all(self) -> list[DeviceTier]:
        with self._lock:
            return list(self._banks.values())
