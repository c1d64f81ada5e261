"""The model that is trained: the frozen upper layers with an adapter and a head that learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from hmi.models.bert import HBert
from hmi.training.states import Breathe, LowerStates
from hmi.training.trainable import TrainableAdapter

__all__ = ["Network"]

_JUDGING_BATCH = 64


class Network:
    """`model` is frozen, `adapter` learns; `breathe` is called after every batch that is judged."""

    def __init__(self, model: HBert, adapter: TrainableAdapter, breathe: Breathe) -> None:
        self.model = model
        self.adapter = adapter
        self._breathe = breathe

    @property
    def device(self) -> torch.device:
        return self.model.device

    def upper(self, states: LowerStates, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Last states `[B, T, H]` of the chosen sequences and their mask, bool `[B, T]`; gradients flow."""
        hidden, mask = states.batch(chosen)
        return self.model.upper(hidden, mask, self.adapter.maths(self.model.dtype)), mask

    @torch.no_grad()
    def judged(self, states: LowerStates) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """All sequences in batches of like length: which they are, last states and mask, without gradients."""
        order = np.argsort(states.lengths, kind="stable").tolist()
        for start in range(0, len(order), _JUDGING_BATCH):
            chosen = order[start : start + _JUDGING_BATCH]
            yield chosen, *self.upper(states, chosen)
            self._breathe()
