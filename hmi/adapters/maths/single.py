"""One adapter for the whole batch: the plain, differentiable form, and the LoRA that all rows of a serving batch share.

`SingleAdapter` is written to be read. Training runs it, and the batched forms are tested against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters import Activation, Adapter
from hmi.spec import Placement, Site

Norm = Callable[[Tensor], Tensor]


class TrainingAdapters(Protocol):
    """The adapters of one batch, as the layers of a model that is trained or evaluated call them."""

    def lora(self, layer: int, site: Site, x: Tensor) -> Tensor | None:
        """Return what to add to the output of the linear layer at `site`; None where no row has a LoRA there.

        Its input x [batch, tokens, in] -> [batch, tokens, out]; zero in rows without a LoRA at this place.
        """

    def bottleneck(self, layer: int, place: Placement, hidden: Tensor, residual: Tensor, norm: Norm) -> Tensor:
        """Return `hidden` plus each row's bottleneck; the caller then takes norm(result + residual).

        Args:
            hidden: [batch, tokens, hidden], output of the sub-layer's last dense.
            residual: [batch, tokens, hidden], the sub-layer's input.
            norm: The sub-layer's own LayerNorm, for adapters that read norm(hidden + residual).
        """


class NoAdapters:
    """The base model alone."""

    def lora(self, layer: int, site: Site, x: Tensor) -> Tensor | None:
        return None

    def bottleneck(self, layer: int, place: Placement, hidden: Tensor, residual: Tensor, norm: Norm) -> Tensor:
        return hidden


@dataclass(frozen=True, slots=True, eq=False)
class LoraTensors:
    a: Tensor  # [rank, in]
    b: Tensor  # [out, rank], with the scaling multiplied in

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.a), self.b)  # [batch, tokens, rank] -> [batch, tokens, out]


@dataclass(frozen=True, slots=True, eq=False)
class BottleneckTensors:
    down: Tensor  # [rank, hidden]
    down_bias: Tensor  # [rank]
    up: Tensor  # [hidden, rank]
    up_bias: Tensor  # [hidden]


class SingleAdapter:
    """One adapter for every row of the batch. The tensors may require gradients. `before_norm`: see `Adapter`."""

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
        bottleneck = {
            key: BottleneckTensors(*(_copied(array, device, dtype) for array in part.arrays().values()))
            for key, part in adapter.bottleneck.items()
        }
        return cls(
            _lora_tensors(adapter, device, dtype),
            bottleneck,
            before_norm=adapter.adapter_before_norm,
            activation=adapter.activation,
        )

    def lora(self, layer: int, site: Site, x: Tensor) -> Tensor | None:
        part = self._lora.get((layer, site))
        return None if part is None else part(x)

    def bottleneck(self, layer: int, place: Placement, hidden: Tensor, residual: Tensor, norm: Norm) -> Tensor:
        part = self._bottleneck.get((layer, place))
        if part is None:
            return hidden
        x = norm(hidden + residual) if self._before_norm else hidden  # [batch, tokens, hidden]
        inner = activate(self._activation, F.linear(x, part.down, part.down_bias))  # [batch, tokens, rank]
        return hidden + F.linear(inner, part.up, part.up_bias)


class SharedLora:
    """One LoRA for every row of a serving forward (`ServingAdapters`): a domain's delta on the lower layers."""

    def __init__(self, lora: Mapping[tuple[int, Site], LoraTensors]) -> None:
        self._lora = lora

    @classmethod
    def of(cls, adapter: Adapter, device: torch.device, dtype: torch.dtype) -> SharedLora:
        return cls(_lora_tensors(adapter, device, dtype))

    @property
    def nbytes(self) -> int:
        return sum(part.a.nbytes + part.b.nbytes for part in self._lora.values())

    def has_lora(self, layer: int, site: Site) -> bool:
        return (layer, site) in self._lora

    def reads_hidden(self, layer: int, place: Placement) -> bool:
        return False

    def lora(self, layer: int, sites: tuple[Site, ...], x: Tensor, y: Tensor) -> None:
        for index, site in enumerate(sites):
            part = self._lora.get((layer, site))
            if part is not None:
                y[:, :, index] += part(x)

    def bottleneck(
        self, layer: int, place: Placement, total: Tensor, hidden: Tensor | None, norm: Callable[[Tensor], Tensor]
    ) -> None:
        """Does nothing: a delta has no bottlenecks."""


def activate(activation: Activation, x: Tensor) -> Tensor:
    match activation:
        case Activation.RELU:
            return F.relu(x)
        case Activation.GELU:
            return F.gelu(x)
        case Activation.SWISH:
            return F.silu(x)
        case Activation.TANH:
            return torch.tanh(x)
        case Activation.IDENTITY:
            return x


def _lora_tensors(
    adapter: Adapter, device: torch.device | str, dtype: torch.dtype
) -> dict[tuple[int, Site], LoraTensors]:
    return {
        key: LoraTensors(_copied(part.a, device, dtype), _copied(part.b, device, dtype))
        for key, part in adapter.lora.items()
    }


def _copied(array: object, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(array).to(device=device, dtype=dtype, copy=True)
