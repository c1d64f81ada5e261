"""The model with an adapter on it: frozen layers, and an adapter that is trained or evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmi.adapters import Adapter
from hmi.adapters.maths import HeadTensors, SingleAdapter, TrainingAdapters, apply_head
from hmi.models.families import HPLM, HBert
from hmi.training.lower import LowerStates, YieldHook
from hmi.training.trainable import TrainableAdapter

_EVALUATION_BATCH = 64
_TOKEN_STEP = 8


class FixedAdapter(nn.Module):
    """An existing adapter with any head, to be evaluated in the place of a `TrainableAdapter`.

    As in training the head runs in float32, in whatever dtype the model runs.
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
        """The adapter; `dtype` must be the model's."""
        if dtype is not self._model.dtype:
            raise ValueError(f"made for {self._model.dtype}, not {dtype}")
        return self._maths

    def logits(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """As `TrainableAdapter.logits`."""
        return apply_head(self._head, self._tensors, hidden.float(), mask, self._pool)

    def _pool(self, first: Tensor) -> Tensor:
        return self._model.pool(first.to(self._model.dtype)).float()


class Network:
    """A frozen `model` with an `adapter`; `yield_hook` is called after every evaluated batch."""

    def __init__(self, model: HPLM, adapter: TrainableAdapter | FixedAdapter, yield_hook: YieldHook) -> None:
        self.model = model
        self.adapter = adapter
        self._yield_hook = yield_hook

    @property
    def device(self) -> torch.device:
        return self.model.device

    def upper(self, states: LowerStates, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Last states `[B, T, H]` of the chosen sequences and their mask, bool `[B, T]`; gradients flow."""
        hidden, mask = _pad_to_step(*states.batch(chosen))
        return self.model.upper(hidden, mask, self.adapter.maths(self.model.dtype)), mask

    @torch.no_grad()
    def evaluation_batches(self, states: LowerStates) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """All sequences in batches of similar length: their places, last states and mask, without gradients."""
        order = np.argsort(states.lengths, kind="stable").tolist()
        for start in range(0, len(order), _EVALUATION_BATCH):
            chosen = order[start : start + _EVALUATION_BATCH]
            yield chosen, *self.upper(states, chosen)
            self._yield_hook()


def _pad_to_step(hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """On a CPU, pad `[B, T, H]` and `[B, T]` to a multiple of a few tokens: oneDNN prepares itself anew for every new
    shape, which on some processors takes longer than a batch of short sentences."""
    missing = -mask.shape[1] % _TOKEN_STEP if mask.device.type == "cpu" else 0
    return (F.pad(hidden, (0, 0, 0, missing)), F.pad(mask, (0, missing))) if missing else (hidden, mask)
