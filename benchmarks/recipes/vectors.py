"""Rows of three vectors, after SkipBERT (Wang et al., ACL 2022, section 3): one for each token of the window.

A token's state is made of the vectors that it has in three windows: its left neighbour's, its own, its right
neighbour's. It so knows of five tokens, for three times the bytes of a row. SkipBERT adds the vectors up, each times a
gate, and normalises the sum; here it is a mean that is weighted in every dimension, over those of the three windows
that hold the token, so that it stays of one size where windows lose neighbours.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmarks.recipes.students import Tried
from hmi.adapters.maths import NoAdapters
from hmi.models.families import HBert
from hmi.training.lower import WindowBatch

_OWN = 4.0  # weight of the own window in the beginning, over that of each other one
# The optimiser moves every parameter by about the learning rate, which suits entries of matrices. Logits of weights
# are far larger than those; kept as multiples of this they learn as fast.
_UNIT = 20.0


class ThreeVectors(Tried):
    vectors: ClassVar[int] = 3

    def __init__(self, model: HBert) -> None:
        super().__init__(model)
        logits = model.window.position.new_zeros(3, model.spec.hidden_size)
        logits[1] = math.log(_OWN) / _UNIT
        # Among the model's own parameters, so that it is trained and kept like them.
        model.register_parameter("mixing", nn.Parameter(logits, requires_grad=False))

    def rows(self, windows: Tensor) -> Tensor:
        model, there = self.bert, windows >= 0
        x: Tensor = model.embeddings(windows.clamp(min=0), model.window.position)  # [n, 3, H]
        for layer in model.transformer_layers[: model.spec.k]:
            x = layer(x, there, NoAdapters())
        projected: Tensor = model.window.projection(x)
        return projected

    def merged(self, rows: Tensor, batch: WindowBatch) -> Tensor:
        logits = self.model.mixing
        assert isinstance(logits, Tensor)
        there = (batch.windows >= 0)[batch.index]  # [B, T, 3]: of each token's window
        there[..., 0] &= batch.mask
        there[..., 2] &= batch.mask
        weights = (logits * _UNIT).masked_fill(~_around(there)[..., None], -torch.inf).softmax(2)  # [B, T, 3, H]
        return self.model.merge((weights * _around(rows[batch.index])).sum(2))


def _around(windows: Tensor) -> Tensor:
    """From what windows `[B, T, 3, ...]` have of their three tokens to what each token has in three windows: it is the
    last one of the window before its own, and the first one of the window after."""
    return torch.stack(
        [
            torch.cat([torch.zeros_like(windows[:, :1, 2]), windows[:, :-1, 2]], 1),
            windows[:, :, 1],
            torch.cat([windows[:, 1:, 0], torch.zeros_like(windows[:, :1, 0])], 1),
        ],
        2,
    )
