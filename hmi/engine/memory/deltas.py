"""Domain deltas on the device: what missing windows of their domains are computed or estimated with."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch

from hmi.adapters.formats import load_delta
from hmi.adapters.maths import SharedLora
from hmi.engine.memory.models import LoadedModel, ModelSource
from hmi.models.layers import RowEstimator, ServedEstimator


@dataclass(frozen=True, slots=True, eq=False)
class LoadedDelta:
    lora: SharedLora  # added to the lower layers
    estimator: ServedEstimator | None  # of its rows, where the delta brings one

    @property
    def nbytes(self) -> int:
        return self.lora.nbytes + (self.estimator.nbytes if self.estimator else 0)


class Deltas:
    """Loads a delta at its first use and keeps the most recently used ones. Thread-safe.

    Only missing windows need a delta, and only while they are computed: a small budget is enough. `max_bytes` is of the
    device, for all base models together; the newest delta is kept in any case.
    """

    def __init__(self, source: ModelSource, max_bytes: int, device: torch.device, dtype: torch.dtype) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._device = device
        self._dtype = dtype
        self._kept: OrderedDict[tuple[str, str], LoadedDelta] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def estimator(self, base: LoadedModel, digest: str | None) -> ServedEstimator | None:
        """Return the delta's estimator, or the base model's where there is no delta. Raises as `get`."""
        return base.model.estimator if digest is None else self.get(base, digest).estimator

    def get(self, base: LoadedModel, digest: str) -> LoadedDelta:
        """Raises what the source raises, and `AdapterRefused` where the delta does not fit the base model."""
        key = base.digest, digest
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            adapter = load_delta(self._source.adapter_file(digest), base.spec)
            estimator = None if adapter.estimator is None else RowEstimator.of(adapter.estimator)
            delta = LoadedDelta(
                SharedLora.of(adapter, self._device, self._dtype),
                None if estimator is None else ServedEstimator(estimator.to(self._device, self._dtype)),
            )
            if self._device.type == "cuda":
                # It is copied on this thread's stream, and streams that compute with it do not wait for that one.
                torch.cuda.current_stream(self._device).synchronize()
            self._kept[key] = delta
            self._bytes += delta.nbytes
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
            return delta
