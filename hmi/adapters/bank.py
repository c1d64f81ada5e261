"""The device tier: one arena of rows, allocated once, that holds the adapters of running batches.

An adapter's rows need not lie together, so there is no fragmentation to speak of: it fits when enough rows
are free. Row 0 stays zero; an index that points to it stands for "nothing here".
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.adapter import Adapter
from hmi.adapters.layout import BodyLayout, HeadLayout, body_layout, head_layout, pack
from hmi.adapters.ledger import Ledger, TierStats

__all__ = ["Bank", "Resident"]


@dataclass(frozen=True, slots=True, eq=False)
class Resident:
    """Where an adapter lies in the arena.

    Attributes:
        body_rows: int64 [body.rows], the arena row of each row of the body's layout.
        head_rows: int64 [head.rows], likewise; empty without a head.
    """

    digest: str
    body: BodyLayout
    head: HeadLayout | None
    body_rows: NDArray[np.int64]
    head_rows: NDArray[np.int64]


class Bank:
    """Adapters in device memory under a byte budget. Safe to call from several threads.

    A pinned adapter keeps its rows; any other may lose them to the next `ensure`. So a batch pins what it
    runs with until its results are there, and on CUDA `ensure` is called on the stream that computes, or
    ordered before it.

    Args:
        hidden_size: Width of a row.
        budget_bytes: The arena's whole size; it is allocated here and never grows.
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
        self._ledger = Ledger(rows - 1, unit_bytes=row_bytes, tier="device")
        self._residents: dict[str, Resident] = {}
        self._lock = threading.Lock()

    def ensure(self, digest: str, adapter: Adapter, *, pin: bool = False) -> Resident:
        """The adapter's place, copying it in where it is absent and evicting the least valuable unpinned ones.

        With `pin` it is pinned in the same step. Raises `Overloaded` where it cannot fit beside what is
        pinned; then nothing was evicted.
        """
        with self._lock:
            resident = self._residents.get(digest)
            if resident is not None:
                self._ledger.hit(digest)
            else:
                self._ledger.miss()
                resident = self._insert(digest, adapter)
            if pin:
                self._ledger.pin(digest)
            return resident

    def pin(self, digest: str) -> None:
        """Keep a resident adapter's rows until `unpin`. Raises `KeyError` for one that is not resident."""
        with self._lock:
            if digest not in self._residents:
                raise KeyError(digest)
            self._ledger.pin(digest)

    def unpin(self, digest: str) -> None:
        """Undo one `pin`."""
        with self._lock:
            if self._ledger.unpin(digest):
                self._release(digest)

    def drop(self, digest: str) -> None:
        """Free the adapter's rows now, or at its last `unpin`; nothing there is no error."""
        with self._lock:
            if self._ledger.drop(digest):
                self._release(digest)

    def stats(self) -> TierStats:
        with self._lock:
            return self._ledger.stats()

    def _insert(self, digest: str, adapter: Adapter) -> Resident:
        body = body_layout(adapter, self._width)
        head = head_layout(adapter.head, self._width) if adapter.head is not None else None
        size = body.rows + (head.rows if head is not None else 0)
        # First what may run out of memory: once the adapter is admitted, it has to lie in its rows.
        values = torch.from_numpy(pack(adapter, self._width)).to(self.arena.dtype).to(self.arena.device)
        for evicted in self._ledger.admit(digest, size):
            self._release(evicted)
        self._free_count -= size
        rows = self._free[self._free_count : self._free_count + size].copy()
        self.arena.index_copy_(0, torch.from_numpy(rows).to(self.arena.device), values)
        resident = Resident(digest, body, head, rows[: body.rows], rows[body.rows :])
        self._residents[digest] = resident
        return resident

    def _release(self, digest: str) -> None:
        resident = self._residents.pop(digest)
        for rows in (resident.body_rows, resident.head_rows):
            self._free[self._free_count : self._free_count + rows.size] = rows
            self._free_count += rows.size
