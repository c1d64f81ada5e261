"""Adapters in host memory and on the device: loaded, pinned for batches, released."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch

from hmi.adapters.tiers import DeviceTier, HostTier, PackedAdapter, Resident
from hmi.engine.config import EngineConfig
from hmi.engine.memory.capacity import CapacityEvents
from hmi.errors import Overloaded, StorageFull, TooLarge
from hmi.stats import TierStats


def adapter_key(base: str, digest: str) -> str:
    """The key of an adapter that is packed for one base model."""
    return f"{base}/{digest}"


def split_key(key: str) -> tuple[str, str]:
    """Base model and adapter, by their digests."""
    base, _, digest = key.partition("/")
    return base, digest


def may_pass(error: Exception) -> bool:
    """Whether an adapter found no room beside those in use: it will when they are released."""
    return isinstance(error, Overloaded) and not isinstance(error, TooLarge | StorageFull)


class AdapterMemory:
    """The host tier, and one tier on the device for each hidden size that is served. Thread-safe.

    `load` reads, checks and packs the adapter of a key; `capacity` is notified when an adapter is released.
    """

    def __init__(
        self,
        config: EngineConfig,
        device: torch.device,
        dtype: torch.dtype,
        load: Callable[[str], PackedAdapter],
        capacity: CapacityEvents,
    ) -> None:
        self.host: HostTier[PackedAdapter] = HostTier(config.host_adapter_bytes, load)
        self._tier_bytes = config.device_adapter_bytes
        self._device = device
        self._dtype = dtype
        self._capacity = capacity
        self._tiers: dict[int, DeviceTier] = {}
        self._lock = threading.Lock()

    def tier(self, hidden_size: int) -> DeviceTier:
        """Allocated when a base model of this size is first used."""
        with self._lock:
            if hidden_size not in self._tiers:
                self._tiers[hidden_size] = DeviceTier(hidden_size, self._tier_bytes, self._device, self._dtype)
            return self._tiers[hidden_size]

    def prefetch(self, key: str) -> None:
        """Start loading an adapter into host memory, unless it is on the device."""
        if not any(key in tier for tier in self._all()):
            self.host.prefetch(key)

    def pin(self, key: str, hidden_size: int) -> Resident:
        """Pin an adapter on the device, where it is copied if it is absent.

        Raises what loading raises, and `Overloaded` where it finds no room; see `may_pass`.
        """
        tier = self.tier(hidden_size)
        resident = tier.pin(key)
        if resident is None:
            return self._copy(key, tier)
        self.host.touch(key)
        return resident

    def unpin(self, keys: Sequence[str], hidden_size: int) -> None:
        """Undo one `pin` of each."""
        if not keys:
            return
        tier = self.tier(hidden_size)
        for key in keys:
            tier.unpin(key)
        self._capacity.notify()

    def drop(self, key: str) -> None:
        """Free an adapter's bytes now, or when nothing uses it any more."""
        self.host.drop(key)
        for tier in self._all():
            tier.drop(key)

    def device_stats(self) -> TierStats:
        """All hidden sizes together."""
        return TierStats.total(tier.stats() for tier in self._all())

    def _all(self) -> list[DeviceTier]:
        with self._lock:
            return list(self._tiers.values())

    def _copy(self, key: str, tier: DeviceTier) -> Resident:
        adapter = self.host.acquire(key)
        waits = False
        try:
            return tier.insert_pinned(key, adapter)
        except Overloaded as error:
            waits = may_pass(error)
            raise
        finally:
            if self.host.release(key):
                tier.drop(key)  # it was dropped while it was copied
            # Others may have found no room in host memory beside this one. Where this one itself waits for room on the
            # device, it must not notify: it would try again at once, and without end.
            if not waits:
                self._capacity.notify()
