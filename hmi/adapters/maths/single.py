"""What a model asks of adapters inside a layer, and the plain maths of one adapter.

`SingleAdapter` is written to be read: dense, differentiable, one adapter for the whole batch. Training
runs it, and the batched forms are tested against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hmi.adapters.adapter import Activation, Adapter
from hmi.spec import Placement, Site

__all__ = [
    "BottleneckTensors",
    "LoraTensors",
    "NoAdapters",
    "Norm",
    "SingleAdapter",
    "TrainingAdapters",
    "activate",
]

Norm = Callable[[Tensor], Tensor]


class TrainingAdapters(Protocol):
    """The adapters of one batch, as the layers of a model call them."""

    def lora(self, layer: int, site: Site, x: Tensor) -> Tensor | None:
        """What to add to the output of the linear layer at `site`, or None where nobody in the batch has a LoRA there.

        Args:
            x: [batch, tokens, in], the linear layer's input.

        Returns:
            [batch, tokens, out]; zero in rows without a LoRA at this place.
        """
        ...

    def bottleneck(self, layer: int, place: Placement, hidden: Tensor, residual: Tensor, norm: Norm) -> Tensor:
        """`hidden` plus each row's bottleneck output; the caller then takes norm(result + residual).

        Args:
            hidden: [batch, tokens, hidden], output of the sub-layer's last dense.
            residual: [batch, tokens, hidden], the sub-layer's input.
            norm: The sub-layer's own LayerNorm, for adapters that read LN(hidden + residual).
        """
        ...


class NoAdapters:
    """The base model as it is."""

    def lora(self, layer: int, site: Site, x: Tensor) -> Tensor | None:
        return None

    def bottleneck(self, layer: int, place: Placement, hidden: Tensor, residual: Tensor, norm: Norm) -> Tensor:
        return hidden


@dataclass(frozen=True, slots=True, eq=False)
class LoraTensors:
    """a [rank, in], b [out, rank] with the scaling multiplied in."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class BottleneckTensors:
    """down [rank, hidden], down_bias [rank], up [hidden, rank], up_bias [hidden]."""

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor


class SingleAdapter:
    """One adapter for every row of the batch. The tensors may require gradients.

    Args:
        before_norm: True (Pfeiffer): bottlenecks read norm(hidden + residual). False (Houlsby): they read hidden.
    """

    def __init__(
        self,
        lora: Mapping[tuple[int, Site], LoraTensors],
        bottleneck: Mapping[tuple[int, Placement], BottleneckTensors],
        *,
        before_norm: bool = True,
        activation: Activation = Activation.RELU,
    ) -> None:
        self._lora = lora
        self._bottleneck = bottleneck
        self._before_norm = before_norm
        self._activation = activation

    @classmethod
    def of(
        cls, adapter: Adapter, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> SingleAdapter:
        """The tensors of an adapter, copied to `device` as `dtype`."""

        def tensor(array: object) -> Tensor:
            return torch.as_tensor(array).to(device=device, dtype=dtype, copy=True)

        return cls(
            {key: LoraTensors(tensor(part.a), tensor(part.b)) for key, part in adapter.lora.items()},
            {
                key: BottleneckTensors(tensor(part.down), tensor(part.down_bias), tensor(part.up), tensor(part.up_bias))
                for key, part in adapter.bottleneck.items()
            },
            before_norm=adapter.adapter_before_norm,
            activation=adapter.activation,
        )

    def lora(self, layer: int, site: Site, x: Tensor) -> Tensor | None:
        part = self._lora.get((layer, site))
        if part is None:
            return None
        return functional.linear(functional.linear(x, part.a), part.b)  # [batch, tokens, rank] -> [batch, tokens, out]

    def bottleneck(self, layer: int, place: Placement, hidden: Tensor, residual: Tensor, norm: Norm) -> Tensor:
        part = self._bottleneck.get((layer, place))
        if part is None:
            return hidden
        x = norm(hidden + residual) if self._before_norm else hidden
        inner = activate(self._activation, functional.linear(x, part.down, part.down_bias))  # [batch, tokens, rank]
        return hidden + functional.linear(inner, part.up, part.up_bias)


def activate(activation: Activation, x: Tensor) -> Tensor:
    """The activation, elementwise."""
    match activation:
        case Activation.RELU:
            return functional.relu(x)
        case Activation.GELU:
            return functional.gelu(x)
        case Activation.SWISH:
            return functional.silu(x)
        case Activation.TANH:
            return torch.tanh(x)
        case Activation.IDENTITY:
            return x
