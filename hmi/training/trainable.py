"""Adapters and deltas as torch parameters: float32 master weights that run in the model's dtype.

`TrainableAdapter` sits on the upper layers and has a head, `TrainableDelta` sits on the lower layers. Both start as the
base model or as an existing adapter, give `maths` to a forward, and `export` a plain `Adapter`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmi.adapters import Activation, Adapter, AdapterKind, Array, Bottleneck, Head, Lora, Pooling, Transform
from hmi.adapters.maths import BottleneckTensors, LoraTensors, SingleAdapter, TrainingAdapters, pool
from hmi.errors import AdapterRefused
from hmi.spec import HPLMSpec, Placement, Site
from hmi.training.plan import TrainConfig

KeyT = TypeVar("KeyT")
PartT = TypeVar("PartT")
LoraPairs = dict[tuple[int, Site], LoraTensors]
Part = LoraTensors | BottleneckTensors | Lora | Bottleneck


def _lora_pairs(
    spec: HPLMSpec, layers: Iterable[int], sites: tuple[Site, ...], rank: int, generator: torch.Generator
) -> LoraPairs:
    """A pair for each layer and site; `b` is zero, so that the pairs add nothing yet."""
    shapes = {site: spec.site_shape(site) for site in sites}
    return {
        (layer, site): LoraTensors(_random_parameter(rank, inputs, generator), _zero_parameter(outputs, rank))
        for layer in layers
        for site, (inputs, outputs) in shapes.items()
    }


def _random_parameter(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    # One over the square root of the fan-in: the rank's activations start at the input's own scale.
    return nn.Parameter(torch.randn(rows, columns, generator=generator) / math.sqrt(columns))


def _zero_parameter(*shape: int) -> Tensor:
    return nn.Parameter(torch.zeros(*shape))


def _tensors_of(part: Part) -> list[Any]:
    """The tensors or arrays of one part, in the order of its fields."""
    return [getattr(part, field.name) for field in dataclasses.fields(part)]


def _convert_parts(
    parts: Mapping[KeyT, Part], kind: Callable[..., PartT], convert: Callable[[Tensor], object]
) -> dict[KeyT, PartT]:
    """The parts as `kind`, each tensor converted."""
    return {key: kind(*map(convert, _tensors_of(part))) for key, part in parts.items()}


def _array_of(tensor: Tensor) -> Array:
    return cast(Array, tensor.detach().cpu().numpy().copy())


class TrainableAdapter(nn.Module):
    """LoRA pairs or bottlenecks on the upper layers, and a linear head on the pooled state or on all states.

    It starts as the base model, with a head of zeros, or as another adapter, see `start_from`. Without `labels` it has
    no head.
    """

    def __init__(
        self,
        spec: HPLMSpec,
        config: TrainConfig,
        labels: tuple[str, ...],
        pooling: Pooling,
        generator: torch.Generator,
        *,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        self.labels = labels
        self._spec = spec
        self._config = config
        self._pooling = pooling
        self._multi_label = multi_label
        self._lora: LoraPairs = {}
        self._bottleneck: dict[tuple[int, Placement], BottleneckTensors] = {}
        upper = range(max(spec.k, config.lowest_layer), spec.layers)
        rank, hidden = config.rank, spec.hidden_size
        if config.kind is AdapterKind.LORA:
            self._lora = _lora_pairs(spec, upper, config.sites, rank, generator)
        elif config.kind is AdapterKind.BOTTLENECK:
            self._bottleneck = {
                (layer, place): BottleneckTensors(
                    _random_parameter(rank, hidden, generator),
                    _zero_parameter(rank),
                    _zero_parameter(hidden, rank),
                    _zero_parameter(hidden),
                )
                for layer in upper
                for place in config.placements
            }
        if labels:
            self.out = _zero_parameter(len(labels), hidden)
            self.out_bias = _zero_parameter(len(labels))
        parts: list[Part] = [*self._lora.values(), *self._bottleneck.values()]
        self.body = nn.ParameterList(tensor for part in parts for tensor in _tensors_of(part))

    @torch.no_grad()
    def start_from(self, start: Adapter) -> None:
        """Copy another adapter of the same base at any k: its parts on the layers that are trained here, and its head
        if that is a linear one for the same labels.

        Raises `AdapterRefused` if it has a part there that this adapter cannot have.
        """
        config = self._config
        start.validate(self._spec.ordinary)
        if start.kind is not config.kind:
            raise AdapterRefused(f"the adapter to begin with is of kind {start.kind.value}, not {config.kind.value}")
        form = (config.before_norm, config.activation)
        if start.bottleneck and (start.adapter_before_norm, start.activation) != form:
            raise AdapterRefused("the bottlenecks to begin with read another state, or have another activation")
        for site, pair in start.lora.items():
            self._copy_part(site, self._lora.get(site), pair)
        for place, part in start.bottleneck.items():
            self._copy_part(place, self._bottleneck.get(place), part)
        if start.head is not None and self._has_same_head(start.head):
            order = [start.head.labels.index(label) for label in self.labels]
            self.out.copy_(torch.from_numpy(start.head.out[order]))
            self.out_bias.copy_(torch.from_numpy(start.head.out_bias[order]))

    def _copy_part(self, key: tuple[int, Site | Placement], ours: Part | None, theirs: Lora | Bottleneck) -> None:
        """Into the first ranks of the own part, unless the layer is looked up."""
        layer, place = key
        if layer < self._spec.k:
            return
        if ours is None:
            raise AdapterRefused(
                f"the adapter to begin with is on layer {layer} at {place.value}, where none is trained"
            )
        most = self._config.rank
        if most < theirs.rank:
            raise AdapterRefused(f"the adapter to begin with has rank {theirs.rank}, and {most} is trained")
        for into, array in zip(_tensors_of(ours), _tensors_of(theirs), strict=True):
            into[tuple(map(slice, array.shape))] = torch.from_numpy(array)

    def _has_same_head(self, head: Head) -> bool:
        return (
            head.transform is Transform.NONE
            and head.pooling is self._pooling
            and head.multi_label is self._multi_label
            and set(head.labels) == set(self.labels)
        )

    def maths(self, dtype: torch.dtype) -> TrainingAdapters:
        """The adapter in `dtype`; gradients flow back to the float32 master weights."""
        return SingleAdapter(
            _convert_parts(self._lora, LoraTensors, lambda tensor: tensor.to(dtype)),
            _convert_parts(self._bottleneck, BottleneckTensors, lambda tensor: tensor.to(dtype)),
            before_norm=self._config.before_norm,
            activation=self._config.activation,
        )

    def logits(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Upper states `[B, T, H]` and mask bool `[B, T]` -> float32 `[B, labels]`, or `[B, T, labels]` per token."""
        return F.linear(pool(self._pooling, hidden.float(), mask), self.out, self.out_bias)

    def export(self) -> Adapter:
        """The trained weights as the plain adapter that is served."""
        head = None
        if self.labels:
            out, bias = _array_of(self.out), _array_of(self.out_bias)
            head = Head.linear(self._pooling, out, bias, self.labels, multi_label=self._multi_label)
        return Adapter(
            kind=self._config.kind,
            lora=_convert_parts(self._lora, Lora, _array_of),
            bottleneck=_convert_parts(self._bottleneck, Bottleneck, _array_of),
            adapter_before_norm=self._config.before_norm,
            activation=self._config.activation,
            head=head,
        )


class TrainableDelta(nn.Module):
    """A domain delta: LoRA pairs on every lower layer, no head.

    The delta `above`, an ancestor's, is not trained: its pairs stay beside the new ones, and the ranks add up.
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
        self.body = nn.ParameterList(tensor for part in self._own.values() for tensor in _tensors_of(part))
        self._above = above.lora if above else {}

    def maths(self, dtype: torch.dtype) -> TrainingAdapters:
        """The delta in `dtype`; gradients flow back to the float32 master weights."""
        return SingleAdapter(_convert_parts(self._joined(), LoraTensors, lambda tensor: tensor.to(dtype)), {})

    def export(self) -> Adapter:
        """The trained weights as the delta that rows are computed with."""
        return Adapter(
            kind=AdapterKind.LORA,
            lora=_convert_parts(self._joined(), Lora, _array_of),
            bottleneck={},
            adapter_before_norm=True,
            activation=Activation.RELU,
            head=None,
        )

    def _joined(self) -> LoraPairs:
        device = self.body[0].device
        joined = dict(self._own)
        for key, part in self._above.items():
            a, b = (torch.from_numpy(array).to(device) for array in (part.a, part.b))
            own = joined.get(key)
            joined[key] = (
                LoraTensors(a, b) if own is None else LoraTensors(torch.cat([a, own.a]), torch.cat([b, own.b], 1))
            )
        return joined
