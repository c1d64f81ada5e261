"""An adapter as it is, for the network that judges."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hmi.adapters import Adapter
from hmi.adapters.maths import HeadTensors, SingleAdapter, TrainingAdapters, apply_head
from hmi.models.families import HBert

__all__ = ["FixedAdapter"]


class FixedAdapter(nn.Module):
    """In the place of a `TrainableAdapter`: any adapter with any head, on the model that it belongs to.

    Nothing of it learns. As in training the head runs in float32, whatever the model runs in.
    """

    def __init__(self, adapter: Adapter, model: HBert) -> None:
        super().__init__()
        if adapter.head is None:
            raise ValueError("an adapter without a head gives no labels")
        self.labels = adapter.head.labels
        self._head = adapter.head
        self._tensors = HeadTensors.of(adapter.head, model.device)
        self._maths = SingleAdapter.of(adapter, model.device, model.dtype)
        self._model = model

    def maths(self, dtype: torch.dtype) -> TrainingAdapters:
        """The adapter, in the model's dtype, which alone may be asked for."""
        if dtype is not self._model.dtype:
            raise ValueError(f"made for {self._model.dtype}, not {dtype}")
        return self._maths

    def logits(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Upper states `[B, T, H]` and mask bool `[B, T]` -> float32 `[B, labels]`; `[B, T, labels]` of every token."""
        return apply_head(self._head, self._tensors, hidden.float(), mask, self._pool)

    def _pool(self, first: Tensor) -> Tensor:
        return self._model.pool(first.to(self._model.dtype)).float()
