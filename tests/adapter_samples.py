"""Adapters with random weights, wide enough for a wrong row, rank or tenant to show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmi.adapters.adapter import Activation, Adapter, AdapterKind, Array, Bottleneck, Head, Lora, Pooling, Transform
from hmi.spec import Family, HPLMSpec, Placement, Site

__all__ = ["bottleneck_adapter", "head", "head_adapter", "lora_adapter", "random_array", "sample_spec"]


def sample_spec(*, k: int = 0, hidden: int = 32, has_pooler: bool = True) -> HPLMSpec:
    return HPLMSpec(
        family=Family.BERT,
        vocab_size=100,
        hidden_size=hidden,
        layers=4,
        heads=4,
        intermediate_size=2 * hidden,
        max_positions=48,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        activation="gelu",
        pad_token_id=0,
        k=k,
        has_pooler=has_pooler,
    )


def random_array(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(0, 0.3, shape).astype(np.float32)


def head(
    rng: np.random.Generator,
    labels: int = 3,
    *,
    hidden: int = 32,
    pooling: Pooling = Pooling.CLS,
    transform: Transform = Transform.NONE,
    activation: Activation = Activation.TANH,
    own_dense: bool = False,
    multi_label: bool = False,
) -> Head:
    return Head(
        pooling=pooling,
        transform=transform,
        activation=activation,
        dense=random_array(rng, hidden, hidden) if own_dense else None,
        dense_bias=random_array(rng, hidden) if own_dense else None,
        out=random_array(rng, labels, hidden),
        out_bias=random_array(rng, labels),
        labels=tuple(f"label {number}" for number in range(labels)),
        multi_label=multi_label,
    )


def lora_adapter(
    rng: np.random.Generator,
    rank: int = 4,
    *,
    spec: HPLMSpec | None = None,
    sites: Sequence[Site] = (Site.Q, Site.V),
    head: Head | None = None,
) -> Adapter:
    spec = spec or sample_spec()
    pairs = {}
    for layer in range(spec.k, spec.layers):
        for site in sites:
            inputs, outputs = spec.site_shape(site)
            pairs[layer, site] = Lora(random_array(rng, rank, inputs), random_array(rng, outputs, rank))
    return Adapter(AdapterKind.LORA, pairs, {}, True, Activation.IDENTITY, head)


def bottleneck_adapter(
    rng: np.random.Generator,
    rank: int = 8,
    *,
    spec: HPLMSpec | None = None,
    places: Sequence[Placement] = (Placement.OUTPUT,),
    before_norm: bool = True,
    activation: Activation = Activation.RELU,
    head: Head | None = None,
) -> Adapter:
    spec = spec or sample_spec()
    hidden = spec.hidden_size
    parts = {
        (layer, place): Bottleneck(
            random_array(rng, rank, hidden),
            random_array(rng, rank),
            random_array(rng, hidden, rank),
            random_array(rng, hidden),
        )
        for layer in range(spec.k, spec.layers)
        for place in places
    }
    return Adapter(AdapterKind.BOTTLENECK, {}, parts, before_norm, activation, head)


def head_adapter(head: Head) -> Adapter:
    """A head on the base model as it is."""
    return Adapter(AdapterKind.NONE, {}, {}, True, Activation.IDENTITY, head)
