"""A tenant's adapter: its weights in host memory, checked against the model it stands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hmi.adapters.weights import Activation, Array, Bottleneck, Estimator, Head, Lora, Pooling, Transform
from hmi.errors import AdapterRefused
from hmi.spec import HPLMSpec, Placement, Site

__all__ = [
    "Activation",
    "Adapter",
    "AdapterKind",
    "Array",
    "Bottleneck",
    "Estimator",
    "Head",
    "Lora",
    "Pooling",
    "Transform",
]

_ENCODERS_READ = (Pooling.CLS, Pooling.MEAN, Pooling.TOKENS)
_DECODERS_READ = (Pooling.LAST, Pooling.MEAN)


class AdapterKind(StrEnum):
    """What an adapter adds to the upper layers. `NONE` is a head on the base model as it is."""

    NONE = "none"
    LORA = "lora"
    BOTTLENECK = "bottleneck"


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """Everything that is one tenant's own.

    Attributes:
        lora: By layer and linear layer; ranks may differ from one to the next.
        bottleneck: By layer and placement; ranks may differ.
        adapter_before_norm: True (Pfeiffer): the bottleneck reads LN(h + residual). False (Houlsby): it
            reads h. In both cases the result is h + up(act(down(x))), which the model adds to the
            residual and normalises.
        activation: Of the bottlenecks.
        head: None for an adapter that only gives embeddings (mean pooled).
        estimator: Of a domain's delta alone: what stands in for rows of its function.
    """

    kind: AdapterKind
    lora: Mapping[tuple[int, Site], Lora]
    bottleneck: Mapping[tuple[int, Placement], Bottleneck]
    adapter_before_norm: bool
    activation: Activation
    head: Head | None
    estimator: Estimator | None = None

    @property
    def rank(self) -> int:
        """The largest rank of any part; 0 where there is none."""
        return max((part.rank for part in self._parts()), default=0)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in host memory."""
        return sum(part.nbytes for part in (*self._parts(), self.head, self.estimator) if part)

    def tensors(self) -> dict[str, Array]:
        """Every weight under its canonical name."""
        named: dict[str, Array] = {}
        for (layer, site), lora in sorted(self.lora.items()):
            named[f"lora.{layer}.{site.value}.a"] = lora.a
            named[f"lora.{layer}.{site.value}.b"] = lora.b
        for (layer, place), part in sorted(self.bottleneck.items()):
            for field in ("down", "down_bias", "up", "up_bias"):
                named[f"bottleneck.{layer}.{place.value}.{field}"] = getattr(part, field)
        if self.head is not None:
            for field in ("dense", "dense_bias", "out", "out_bias"):
                value = getattr(self.head, field)
                if value is not None:
                    named[f"head.{field}"] = value
        if self.estimator is not None:
            named.update({f"estimator.{field}": array for field, array in self.estimator.arrays().items()})
        return named

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
            require_layer(name, layer, spec)
            if site not in spec.sites:
                raise AdapterRefused(f"{name}: a {spec.family} has no linear layer {site.value!r}")
            lora.check(name, spec.site_shape(site))
        if self.bottleneck and spec.family.decodes:
            raise AdapterRefused(f"bottlenecks sit on encoders; a {spec.family} takes a LoRA")
        for (layer, place), bottleneck in self.bottleneck.items():
            name = f"bottleneck.{layer}.{place.value}"
            require_layer(name, layer, spec)
            bottleneck.check(name, spec.hidden_size)
        if self.head is not None:
            self.head.check(spec.hidden_size)
            if self.head.pooling not in (_DECODERS_READ if spec.family.decodes else _ENCODERS_READ):
                raise AdapterRefused(f"a head of a {spec.family} has no pooling {self.head.pooling.value!r}")
            if self.head.uses_base_pooler and not spec.has_pooler:
                raise AdapterRefused("the head reads the base model's pooler, and this base model has none")

    def summary(self) -> dict[str, Any]:
        """What a listing shows of the adapter: JSON-ready, no weights."""
        head = self.head
        return {
            "kind": self.kind.value,
            "rank": self.rank,
            "ranks": sorted({part.rank for part in self._parts()}),
            "layers": sorted({layer for layer, _ in [*self.lora, *self.bottleneck]}),
            "sites": sorted({site.value for _, site in [*self.lora, *self.bottleneck]}),
            "placement": self._placement(),
            "activation": self.activation.value if self.bottleneck else None,
            "bytes": self.nbytes,
            "labels": list(head.labels) if head else None,
            "multi_label": head.multi_label if head else None,
            "pooling": (head.pooling if head else Pooling.MEAN).value,
            "transform": head.transform.value if head else None,
            "estimator": self.estimator.size if self.estimator else None,
        }

    def _placement(self) -> str | None:
        if not self.bottleneck:
            return None
        return "pfeiffer" if self.adapter_before_norm else "houlsby"

    def _parts(self) -> Iterator[Lora | Bottleneck]:
        yield from self.lora.values()
        yield from self.bottleneck.values()


def require_layer(name: str, layer: int, spec: HPLMSpec) -> None:
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
