"""Adapters with their heads as parameters: float32 masters that run in the model's dtype."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmi.adapters import Activation, Adapter, AdapterKind, Bottleneck, Head, Pooling, Transform
from hmi.adapters.maths import BottleneckTensors, LoraTensors, SingleAdapter, TrainingAdapters, pool
from hmi.errors import AdapterRefused
from hmi.spec import HPLMSpec, Placement, Site
from hmi.training.loop import array_of, cast_pairs, lora_pairs, pair_arrays, random_parameter, zero_parameter

__all__ = ["TrainableAdapter"]


class TrainableAdapter(nn.Module):
    """LoRA pairs or bottlenecks on every upper layer from the lowest that is wanted, and a linear head on the
    pooled or on all states.

    It starts as the base model: what adds to the base starts at zero, and so does the head; or as another adapter, see
    `begin_with`.

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
        self._spec = spec
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
            self._lora = lora_pairs(spec, upper, sites, rank, generator)
        elif kind is AdapterKind.BOTTLENECK:
            for layer in upper:
                for place in placements:
                    self._bottleneck[layer, place] = BottleneckTensors(
                        random_parameter(rank, hidden, generator),
                        zero_parameter(rank),
                        zero_parameter(hidden, rank),
                        zero_parameter(hidden),
                    )
        if labels:
            self.out = zero_parameter(len(labels), hidden)
            self.out_bias = zero_parameter(len(labels))
        self.body = nn.ParameterList(self._body())

    @torch.no_grad()
    def begin_with(self, start: Adapter) -> None:
        """Begin as another adapter of the same base at any k: with all that it does in the layers that this one is on,
        and with its head where that is a linear one for the same labels.

        Raises `AdapterRefused` for an adapter that does there what this one cannot.
        """
        start.validate(self._spec.ordinary)
        if start.kind is not self._kind:
            raise AdapterRefused(f"the adapter to begin with is of kind {start.kind.value}, not {self._kind.value}")
        if start.bottleneck and (start.adapter_before_norm, start.activation) != (self._before_norm, self._activation):
            raise AdapterRefused("the bottlenecks to begin with read another state, or have another activation")
        for site, pair in start.lora.items():
            if site[0] >= self._spec.k:
                self._require(site, self._lora.get(site), pair.rank)
                ours = self._lora[site]
                ours.a[: pair.rank] = torch.from_numpy(pair.a)
                ours.b[:, : pair.rank] = torch.from_numpy(pair.b)
        for place, part in start.bottleneck.items():
            if place[0] >= self._spec.k:
                self._require(place, self._bottleneck.get(place), part.rank)
                into = self._bottleneck[place]
                into.down[: part.rank] = torch.from_numpy(part.down)
                into.down_bias[: part.rank] = torch.from_numpy(part.down_bias)
                into.up[:, : part.rank] = torch.from_numpy(part.up)
                into.up_bias.copy_(torch.from_numpy(part.up_bias))
        if start.head is not None and self._reads_as(start.head):
            order = [start.head.labels.index(label) for label in self.labels]
            self.out.copy_(torch.from_numpy(start.head.out[order]))
            self.out_bias.copy_(torch.from_numpy(start.head.out_bias[order]))

    def _require(
        self, place: tuple[int, Site | Placement], ours: LoraTensors | BottleneckTensors | None, rank: int
    ) -> None:
        if ours is None:
            raise AdapterRefused(
                f"the adapter to begin with is on layer {place[0]} at {place[1].value}, where none is trained"
            )
        most = len(ours.a if isinstance(ours, LoraTensors) else ours.down)
        if most < rank:
            raise AdapterRefused(f"the adapter to begin with has rank {rank}, and {most} is trained")

    def _reads_as(self, head: Head) -> bool:
        return (
            head.transform is Transform.NONE
            and head.pooling is self._pooling
            and head.multi_label is self._multi_label
            and set(head.labels) == set(self.labels)
        )

    def maths(self, dtype: torch.dtype) -> TrainingAdapters:
        """The adapter in `dtype`, with gradients flowing back to the float32 masters."""
        return SingleAdapter(
            cast_pairs(self._lora, dtype),
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
        return F.linear(pool(self._pooling, hidden.float(), mask), self.out, self.out_bias)

    def export(self) -> Adapter:
        """The trained weights as the plain adapter that is served."""
        return Adapter(
            kind=self._kind,
            lora=pair_arrays(self._lora),
            bottleneck={
                key: Bottleneck(
                    array_of(part.down), array_of(part.down_bias), array_of(part.up), array_of(part.up_bias)
                )
                for key, part in self._bottleneck.items()
            },
            adapter_before_norm=self._before_norm,
            activation=self._activation,
            head=self._head() if self.labels else None,
        )

    def _head(self) -> Head:
        return Head.linear(
            self._pooling, array_of(self.out), array_of(self.out_bias), self.labels, multi_label=self._multi_label
        )

    def _body(self) -> Iterator[Tensor]:
        for lora in self._lora.values():
            yield from (lora.a, lora.b)
        for part in self._bottleneck.values():
            yield from (part.down, part.down_bias, part.up, part.up_bias)
