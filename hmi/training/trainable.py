"""Adapters with their heads, and domain deltas, as parameters: float32 masters that run in the model's dtype."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmi.adapters.adapter import Activation, Adapter, AdapterKind, Array, Bottleneck, Head, Lora, Pooling, Transform
from hmi.adapters.heads import mean_pool
from hmi.adapters.maths import AdapterMaths, BottleneckTensors, LoraTensors, SingleAdapter
from hmi.spec import HPLMSpec, Placement, Site

__all__ = ["TrainableAdapter", "TrainableDelta"]


class TrainableAdapter(nn.Module):
    """LoRA pairs or bottlenecks on every upper layer from the lowest that is wanted, and a linear head on the
    pooled or on all states.

    It starts as the base model: what adds to the base starts at zero, and so does the head.

    Args:
        labels: Of the head; empty for an adapter that only gives embeddings and has none.
        before_norm, activation: Of bottlenecks, as in `TrainConfig`.
    """

    def __init__(
        self,
        spec: HPLMSpec,
        labels: tuple[str, ...],
        *,
        kind: AdapterKind,
        rank: int,
        sites: tuple[Site, ...],
        placements: tuple[Placement, ...],
        pooling: Pooling,
        generator: torch.Generator,
        lowest_layer: int = 0,
        multi_label: bool = False,
        before_norm: bool = True,
        activation: Activation = Activation.RELU,
    ) -> None:
        super().__init__()
        self.labels = labels
        self._multi_label = multi_label
        self._before_norm = before_norm
        self._activation = activation
        self._kind = kind
        self._pooling = pooling
        self._lora: dict[tuple[int, Site], LoraTensors] = {}
        self._bottleneck: dict[tuple[int, Placement], BottleneckTensors] = {}
        upper = range(max(spec.k, lowest_layer), spec.layers)

        hidden = spec.hidden_size
        if kind is AdapterKind.LORA:
            self._lora = _lora_pairs(spec, upper, sites, rank, generator)
        elif kind is AdapterKind.BOTTLENECK:
            for layer in upper:
                for place in placements:
                    self._bottleneck[layer, place] = BottleneckTensors(
                        _drawn(rank, hidden, generator), _zeros(rank), _zeros(hidden, rank), _zeros(hidden)
                    )
        if labels:
            self.out = _zeros(len(labels), hidden)
            self.out_bias = _zeros(len(labels))
        self.body = nn.ParameterList(self._body())

    def maths(self, dtype: torch.dtype) -> AdapterMaths:
        """The adapter in `dtype`, with gradients flowing back to the float32 masters."""
        return SingleAdapter(
            _cast(self._lora, dtype),
            {
                key: BottleneckTensors(
                    part.down.to(dtype), part.down_bias.to(dtype), part.up.to(dtype), part.up_bias.to(dtype)
                )
                for key, part in self._bottleneck.items()
            },
            before_norm=self._before_norm,
            activation=self._activation,
        )

    def logits(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Upper states `[B, T, H]` and mask bool `[B, T]` -> float32 `[B, labels]`; `[B, T, labels]` of every token."""
        states = hidden.float()
        if self._pooling is Pooling.MEAN:
            states = mean_pool(states, mask)  # [B, H]
        elif self._pooling is Pooling.CLS:
            states = states[:, 0]
        return F.linear(states, self.out, self.out_bias)

    def export(self) -> Adapter:
        """The trained weights as the plain adapter that is served."""
        return Adapter(
            kind=self._kind,
            lora=_arrays(self._lora),
            bottleneck={
                key: Bottleneck(_array(part.down), _array(part.down_bias), _array(part.up), _array(part.up_bias))
                for key, part in self._bottleneck.items()
            },
            adapter_before_norm=self._before_norm,
            activation=self._activation,
            head=self._head() if self.labels else None,
        )

    def _head(self) -> Head:
        return Head(
            pooling=self._pooling,
            transform=Transform.NONE,
            activation=Activation.IDENTITY,
            dense=None,
            dense_bias=None,
            out=_array(self.out),
            out_bias=_array(self.out_bias),
            labels=self.labels,
            multi_label=self._multi_label,
        )

    def _body(self) -> Iterator[Tensor]:
        for lora in self._lora.values():
            yield from (lora.a, lora.b)
        for part in self._bottleneck.values():
            yield from (part.down, part.down_bias, part.up, part.up_bias)


class TrainableDelta(nn.Module):
    """A domain delta: LoRA pairs on every lower layer, no head.

    It starts as the base model, or with `above` as the delta of an ancestor, which itself is not trained: the pairs
    stand beside the ancestor's, and the ranks add up.
    """

    def __init__(
        self,
        spec: HPLMSpec,
        *,
        rank: int,
        sites: tuple[Site, ...],
        generator: torch.Generator,
        above: Adapter | None = None,
    ) -> None:
        super().__init__()
        self._own = _lora_pairs(spec, range(spec.k), sites, rank, generator)
        self.body = nn.ParameterList(tensor for part in self._own.values() for tensor in (part.a, part.b))
        self._above = above.lora if above else {}

    def maths(self, dtype: torch.dtype) -> AdapterMaths:
        """The delta in `dtype`, with gradients flowing back to the float32 masters."""
        return SingleAdapter(_cast(self._joined(), dtype), {})

    def export(self) -> Adapter:
        """The trained weights as the delta that rows are computed with."""
        return Adapter(
            kind=AdapterKind.LORA,
            lora=_arrays(self._joined()),
            bottleneck={},
            adapter_before_norm=True,
            activation=Activation.RELU,
            head=None,
        )

    def _joined(self) -> _LoraPairs:
        device = self.body[0].device
        joined = dict(self._own)
        for key, part in self._above.items():
            a, b = (torch.from_numpy(array).to(device) for array in (part.a, part.b))
            own = joined.get(key)
            joined[key] = (
                LoraTensors(a, b) if own is None else LoraTensors(torch.cat([a, own.a]), torch.cat([b, own.b], 1))
            )
        return joined


_LoraPairs = dict[tuple[int, Site], LoraTensors]


def _lora_pairs(
    spec: HPLMSpec, layers: Iterable[int], sites: tuple[Site, ...], rank: int, generator: torch.Generator
) -> _LoraPairs:
    """A pair for each layer and site, as parameters; together they add nothing yet."""
    shapes = {site: spec.site_shape(site) for site in sites}
    return {
        (layer, site): LoraTensors(_drawn(rank, inputs, generator), _zeros(outputs, rank))
        for layer in layers
        for site, (inputs, outputs) in shapes.items()
    }


def _drawn(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    # One over the square root of the fan-in: the rank's activations start at the input's own scale.
    return nn.Parameter(torch.randn(rows, columns, generator=generator) / math.sqrt(columns))


def _zeros(*shape: int) -> Tensor:
    return nn.Parameter(torch.zeros(*shape))


def _cast(pairs: _LoraPairs, dtype: torch.dtype) -> _LoraPairs:
    return {key: LoraTensors(part.a.to(dtype), part.b.to(dtype)) for key, part in pairs.items()}


def _arrays(pairs: _LoraPairs) -> dict[tuple[int, Site], Lora]:
    return {key: Lora(_array(part.a), _array(part.b)) for key, part in pairs.items()}


def _array(tensor: Tensor) -> Array:
    return cast(Array, tensor.detach().cpu().numpy().copy())
