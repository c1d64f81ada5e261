"""Every matrix of the layers learnt as a pair of low rank beside it (Hu et al., LoRA, 2022): small as it is."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.recipes.students import Tried
from hmi.models.families import BertLayer, HBert

RANK = 64


class LowRank(Tried):
    def __init__(self, model: HBert) -> None:
        super().__init__(model)
        generator = torch.Generator().manual_seed(0)
        self._frozen = set()
        for layer, site in _places(model):
            setattr(layer, site, _Pair(getattr(layer, site), generator))
            self._frozen.add(f"layers.{layer.number}.{site}.weight")

    def is_trained(self, name: str) -> bool:
        return super().is_trained(name) and name not in self._frozen

    @torch.no_grad()
    def fold(self) -> None:
        for layer, site in _places(self.bert):
            setattr(layer, site, getattr(layer, site).folded())


class _Pair(nn.Module):
    """A linear layer whose weight stays, and a pair beside it that adds nothing yet."""

    def __init__(self, linear: nn.Linear, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = linear.weight.shape
        down = torch.randn(RANK, inputs, generator=generator) / math.sqrt(inputs)
        # A step of the optimiser so moves the product as far as it moves a matrix that is learnt whole.
        self._scale = math.sqrt(inputs / RANK)
        self.weight, self.bias = linear.weight, linear.bias
        self.down = nn.Parameter(down.to(linear.weight))
        self.up = nn.Parameter(linear.weight.new_zeros(outputs, RANK))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.down), self.up) * self._scale

    def folded(self) -> nn.Linear:
        outputs, inputs = self.weight.shape
        linear = nn.Linear(inputs, outputs, device="meta")
        linear.weight = nn.Parameter(self.weight + self.up @ self.down * self._scale)
        linear.bias = self.bias
        return linear


def _places(model: HBert) -> Iterator[tuple[BertLayer, str]]:
    for layer in model.transformer_layers:
        for site in model.spec.sites:
            yield layer, site.value
