"""The device tier: one arena of rows, allocated once, that holds the adapters of running batches.

An adapter's rows may lie anywhere in the arena, so nothing fragments: it fits when enough rows are free. Row 0 stays
zero and is the index of absent weights.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.tiers.eviction import EvictionPolicy
from hmi.adapters.tiers.layout import BodyLayout, HeadLayout, Labels, PackedAdapter
from hmi.stats import TierStats


@dataclass(frozen=True, slots=True, eq=False)
class Resident:
    """An adapter in the arena."""

    key: str
    body: BodyLayout
    head: HeadLayout | None
    labels: Labels | None
    body_rows: NDArray[np.int64]  # [body.rows], the arena row of each row of the body's layout
    head_rows: NDArray[np.int64]  # [head.rows], likewise; empty without a head


class DeviceTier:
    """Adapters by key in device memory under a byte budget. Safe to call from several threads.

    A pinned adapter keeps its rows; any other may lose them to the next `insert_pinned`. So a batch pins its adapters
    until its results are computed. On CUDA every insert uses one stream, and the computing stream waits for what that
    stream held when the batch was fetched. The arena of `budget_bytes` never grows.
    """

    def __init__(self, hidden_size: int, budget_bytes: int, device: torch.device | str, dtype: torch.dtype) -> None:
        row_bytes = hidden_size * dtype.itemsize
        rows = budget_bytes // row_bytes
        if rows < 2:
            raise ValueError(f"a budget of {budget_bytes} bytes holds no row of {row_bytes} bytes beside the zero row")
        self.arena: Tensor = torch.zeros(rows, hidden_size, device=device, dtype=dtype)
        self._width = hidden_size
        self._free: NDArray[np.int64] = np.arange(rows - 1, 0, -1, dtype=np.int64)  # a stack; its top is the end
        self._free_count = rows - 1
        self._policy = EvictionPolicy(rows - 1, unit_bytes=row_bytes, tier="device")
        self._residents: dict[str, Resident] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._residents

    def pin(self, key: str) -> Resident | None:
        """Pin and return the adapter and count a hit; None where it is not resident, which counts as a miss."""
        with self._lock:
            resident = self._residents.get(key)
            if resident is None:
                self._policy.miss()
                return None
            self._policy.hit(key)
            self._policy.pin(key)
            return resident

    def insert_pinned(self, key: str, adapter: PackedAdapter) -> Resident:
        """Copy in an absent adapter, evicting unpinned ones where there is no room; pin and return it.

        Raises, with nothing evicted, `Overloaded` where it cannot fit beside the pinned adapters, and `TooLarge` where
        it can never fit.
        """
        with self._lock:
            resident = self._residents.get(key) or self._insert(key, adapter)
            self._policy.pin(key)
            return resident

    def unpin(self, key: str) -> None:
        """Undo one `pin`."""
        with self._lock:
            if self._policy.unpin(key):
                self._release(key)

    def drop(self, key: str) -> None:
        """Free the adapter's rows now, or at its last `unpin`; an absent adapter is no error."""
        with self._lock:
            if self._policy.drop(key):
                self._release(key)

    def stats(self) -> TierStats:
        with self._lock:
            return self._policy.stats()

    def _insert(self, key: str, adapter: PackedAdapter) -> Resident:
        size = len(adapter.rows)
        # This copy may run out of memory, so it comes before the adapter is admitted.
        values = adapter.rows.to(self.arena.device, non_blocking=True)
        for evicted in self._policy.admit(key, size):
            self._release(evicted)
        self._free_count -= size
        rows = self._free[self._free_count : self._free_count + size].copy()
        self._write(rows, values)
        body = adapter.body.rows
        resident = Resident(key, adapter.body, adapter.head, adapter.labels, rows[:body], rows[body:])
        self._residents[key] = resident
        return resident

    def _write(self, rows: NDArray[np.int64], values: Tensor) -> None:
        if self.arena.device.type == "cpu":
            # numpy copies whole rows, six times as fast as torch. It has no bfloat16, so it copies them as integers.
            bits = torch.int16 if self.arena.dtype.itemsize == 2 else torch.int32
            self.arena.view(bits).numpy()[rows] = values.view(bits).numpy()
            return
        self.arena.index_copy_(0, torch.from_numpy(rows).to(self.arena.device, non_blocking=True), values)

    def _release(self, key: str) -> None:
        resident = self._residents.pop(key)
        for rows in (resident.body_rows, resident.head_rows):
            self._free[self._free_count : self._free_count + rows.size] = rows
            self._free_count += rows.size
