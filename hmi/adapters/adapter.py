"""A tenant's adapter: its weights in host memory, checked against its base model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hmi.adapters.head import Head, Pooling
from hmi.adapters.weights import Activation, Array, Bottleneck, Estimator, Lora, Weights
from hmi.errors import AdapterRefused
from hmi.spec import HPLMSpec, Placement, Site

_ENCODER_POOLINGS = (Pooling.CLS, Pooling.MEAN, Pooling.TOKENS)
_DECODER_POOLINGS = (Pooling.LAST, Pooling.MEAN)


class AdapterKind(StrEnum):
    """What an adapter adds to the upper layers. `NONE` is a head on the unchanged base model."""

    NONE = "none"
    LORA = "lora"
    BOTTLENECK = "bottleneck"


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """Everything that belongs to one tenant; also a domain's delta, which holds a LoRA on the lower layers."""

    kind: AdapterKind
    lora: Mapping[tuple[int, Site], Lora]  # By layer and linear layer; ranks may differ between them.
    bottleneck: Mapping[tuple[int, Placement], Bottleneck]  # By layer and placement; ranks may differ between them.
    # Bottlenecks read LN(h + residual) if True (Pfeiffer), h if False (Houlsby); both give h + up(act(down(x))).
    adapter_before_norm: bool
    activation: Activation  # Of the bottlenecks
    head: Head | None  # None for an adapter that only gives embeddings (mean pooled)
    estimator: Estimator | None = None  # Of a domain's delta only: estimates rows of the domain's function.

    @property
    def rank(self) -> int:
        """The largest rank of any part; 0 without LoRA and bottlenecks."""
        return max((part.rank for part in self._parts()), default=0)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (*self._parts(), self.head, self.estimator) if part)

    def tensors(self) -> dict[str, Array]:
        """Return every weight under its canonical name."""
        parts: dict[str, Weights | None] = {"head": self.head, "estimator": self.estimator}
        parts |= {f"lora.{layer}.{site.value}": pair for (layer, site), pair in self.lora.items()}
        parts |= {f"bottleneck.{layer}.{place.value}": part for (layer, place), part in self.bottleneck.items()}
        present = ((name, part) for name, part in parts.items() if part is not None)
        return {f"{name}.{field}": array for name, part in present for field, array in part.arrays().items()}

    def validate(self, spec: HPLMSpec) -> None:
        """Raises `AdapterRefused`, naming tensor and reason, unless every part can be applied to a model of `spec`."""
        if bool(self.lora) != (self.kind is AdapterKind.LORA):
            raise AdapterRefused(f"an adapter of kind {self.kind.value} with {len(self.lora)} LoRA pairs")
        if bool(self.bottleneck) != (self.kind is AdapterKind.BOTTLENECK):
            raise AdapterRefused(f"an adapter of kind {self.kind.value} with {len(self.bottleneck)} bottlenecks")
        if self.estimator is not None:
            raise AdapterRefused("estimator: only a domain's delta has one")
        if self.kind is AdapterKind.NONE and self.head is None:
            raise AdapterRefused("the adapter holds neither weights nor a head")
        for (layer, site), lora in self.lora.items():
            name = f"lora.{layer}.{site.value}"
            _require_layer(name, layer, spec)
            if site not in spec.sites:
                raise AdapterRefused(f"{name}: a {spec.family} has no linear layer {site.value!r}")
            lora.check(name, spec.site_shape(site))
        if self.bottleneck and spec.family.decodes:
            raise AdapterRefused(f"bottlenecks sit on encoders; a {spec.family} takes a LoRA")
        for (layer, place), bottleneck in self.bottleneck.items():
            name = f"bottleneck.{layer}.{place.value}"
            _require_layer(name, layer, spec)
            bottleneck.check(name, spec.hidden_size)
        if self.head is not None:
            self.head.check(spec.hidden_size)
            if self.head.pooling not in (_DECODER_POOLINGS if spec.family.decodes else _ENCODER_POOLINGS):
                raise AdapterRefused(f"a head of a {spec.family} has no pooling {self.head.pooling.value!r}")
            if self.head.uses_base_pooler and not spec.has_pooler:
                raise AdapterRefused("the head reads the base model's pooler, and this base model has none")

    def summary(self) -> dict[str, Any]:
        """Return what a listing shows: JSON-ready, without weights."""
        head = self.head
        placement = "pfeiffer" if self.adapter_before_norm else "houlsby"
        return {
            "kind": self.kind.value,
            "rank": self.rank,
            "ranks": sorted({part.rank for part in self._parts()}),
            "layers": sorted({layer for layer, _ in [*self.lora, *self.bottleneck]}),
            "sites": sorted({site.value for _, site in [*self.lora, *self.bottleneck]}),
            "placement": placement if self.bottleneck else None,
            "activation": self.activation.value if self.bottleneck else None,
            "bytes": self.nbytes,
            "labels": list(head.labels) if head else None,
            "multi_label": head.multi_label if head else None,
            "pooling": (head.pooling if head else Pooling.MEAN).value,
            "transform": head.transform.value if head else None,
            "estimator": self.estimator.size if self.estimator else None,
        }

    def _parts(self) -> Iterator[Lora | Bottleneck]:
        yield from self.lora.values()
        yield from self.bottleneck.values()


def _require_layer(name: str, layer: int, spec: HPLMSpec) -> None:
    """Raises `AdapterRefused` for a layer that is not one of the model's upper layers."""
    if layer >= spec.layers or layer < 0:
        raise AdapterRefused(
            f"{name}: layer {layer} is not one of the model's {spec.layers} layers (0..{spec.layers - 1})"
        )
    if layer < spec.k:
        raise AdapterRefused(
            f"{name}: layer {layer} is one of the {spec.k} lower layers, whose output is looked up; "
            f"an adapter for this base may hold layers {spec.k}..{spec.layers - 1} only"
        )
