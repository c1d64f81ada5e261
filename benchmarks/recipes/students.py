"""The product's recipe, and what is tried of losses and of lost neighbours in its place."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hmi.models.families import HPLM, BertLayer, HBert
from hmi.models.layers import round_rows
from hmi.training.distill import Student, Teacher
from hmi.training.lower import WindowBatch, relative_error, states_error

_LOST = 0.1  # of all windows' neighbours, each by itself
_MASKED = -1e4  # a logit that nothing is left of, and finite: 0 times infinity is no number


class Tried(Student):
    """A recipe that is tried; this one is the product's.

    In evaluation mode (`eval()`) rows are rounded as a tree stores them.
    """

    vectors: ClassVar[int] = 1  # of a row

    @property
    def bert(self) -> HBert:
        return hbert(self.model)

    def rows(self, windows: Tensor) -> Tensor:
        """int64 `[n, 3]` -> `[n, vectors, H]`."""
        return self.model.lower(windows)[:, None]

    def merged(self, rows: Tensor, batch: WindowBatch) -> Tensor:
        """`[n, vectors, H]` -> the input of the upper layers, `[B, T, H]`."""
        return self.model.merge(rows[batch.index, 0])

    def given(self, batch: WindowBatch) -> Tensor:
        """The input of the upper layers, `[B, T, H]`."""
        rows = self.rows(batch.windows)
        if not self.training:
            rows = round_rows(rows.float().flatten(0, 1), self.model.spec.row_dtype).view_as(rows).to(rows.dtype)
        return self.merged(rows, batch)

    def states(self, batch: WindowBatch) -> list[Tensor]:
        return list(self.model.upper_states(self.given(batch), batch.mask))

    def fold(self) -> None:
        """After training: leave the model with the modules that an hBERT has."""


class LastLayer(Tried):
    """Only the last layer's states are compared."""

    def forward(self, batch: WindowBatch, teacher: Teacher) -> Tensor:
        ours, wanted = self.states(batch)[-1], teacher.states(batch)[-1]
        return relative_error(ours[batch.mask], wanted[batch.mask])


class WithAttention(Tried):
    """The upper layers' attention is compared too, as TinyBERT does (Jiao et al., 2020), by the divergence that MiniLM
    takes (Wang et al., 2020): KL(full model's || ours), the mean over layers, heads and tokens."""

    def forward(self, batch: WindowBatch, teacher: Teacher) -> Tensor:
        ours, wanted = self.states(batch), teacher.states(batch)
        pairs = zip(
            _attention(self.bert, ours, batch.mask), _attention(hbert(teacher.model), wanted, batch.mask), strict=True
        )
        divergences = [
            F.kl_div(a, b.detach(), reduction="none", log_target=True).sum(-1).transpose(1, 2)[batch.mask].mean()
            for a, b in pairs
        ]
        return states_error(ours, wanted, batch.mask) + torch.stack(divergences).mean()


class LostNeighbours(Tried):
    """In every text a tenth of the windows' neighbours is missing, where the product thins some texts a lot."""

    def __init__(self, model: HBert) -> None:
        super().__init__(model)
        self._generator = torch.Generator().manual_seed(0)

    def forward(self, batch: WindowBatch, teacher: Teacher) -> Tensor:
        return super().forward(self.thinned(batch), teacher)

    def thinned(self, batch: WindowBatch) -> WindowBatch:
        """Of other windows each time."""
        lost = torch.rand(*batch.index.shape, 2, generator=self._generator) < _LOST
        without = (lost[..., 0] + 2 * lost[..., 1]).to(batch.index.device)  # [B, T]: 1 prev, 2 next, 3 both
        shorter = batch.windows.expand(4, -1, -1).clone()  # [4, n, 3]
        shorter[[1, 3], :, 0] = -1
        shorter[[2, 3], :, 2] = -1
        asked = without * len(batch.windows) + batch.index
        used, index = torch.unique(asked, return_inverse=True)
        return dataclasses.replace(batch, windows=shorter.flatten(0, 1)[used], index=index)


def hbert(model: HPLM) -> HBert:
    """Recipes are tried on encoders."""
    if not isinstance(model, HBert):
        raise TypeError(f"a {model.spec.family} is no encoder")
    return model


def _attention(model: HBert, states: list[Tensor], mask: Tensor) -> list[Tensor]:
    """Logarithms of the upper layers' attention, float32 `[B, heads, T, T]`, from the layers' inputs `[B, T, H]`."""
    upper = model.transformer_layers[model.spec.k :]
    return [_log_attention(layer, given, mask) for layer, given in zip(upper, states[:-1], strict=True)]


def _log_attention(layer: BertLayer, x: Tensor, mask: Tensor) -> Tensor:
    q, k = (each(x).unflatten(-1, (layer.heads, -1)).transpose(1, 2).float() for each in (layer.q, layer.k))
    scores: Tensor = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # [B, heads, T, T]
    return scores.masked_fill(~mask[:, None, None, :], _MASKED).log_softmax(-1)
