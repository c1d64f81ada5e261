"""Adapters with random weights, large enough to detect a wrong row, rank or tenant."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from hmi.adapters import Activation, Adapter, AdapterKind, Array, Bottleneck, Head, Lora, Pooling, Transform
from hmi.spec import Family, HPLMSpec, Placement, Site

__all__ = [
    "bottleneck_adapter",
    "head",
    "head_adapter",
    "lora_adapter",
    "random_array",
    "sample_spec",
    "sixteen_tenants",
]


def sample_spec(
    *, k: int = 0, hidden: int = 32, inner: int | None = None, activation: str = "gelu", has_pooler: bool = True
) -> HPLMSpec:
    """`inner`: intermediate size; twice the hidden size by default."""
    return HPLMSpec(
        family=Family.BERT,
        vocab_size=100,
        hidden_size=hidden,
        layers=4,
        heads=4,
        intermediate_size=inner or 2 * hidden,
        max_positions=48,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        activation=activation,
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
    """A head on the unchanged base model."""
    return Adapter(AdapterKind.NONE, {}, {}, True, Activation.IDENTITY, head)


def sixteen_tenants(spec: HPLMSpec) -> list[Adapter]:
    """Every kind, rank, placement, activation, head and label count, in random order; some on upper layers only."""
    rng = np.random.default_rng(3)
    heads = [
        head(rng, 2),
        head(rng, 3, transform=Transform.POOLER),
        head(rng, 7, transform=Transform.POOLER, own_dense=True),
        head(rng, 2, transform=Transform.DENSE, own_dense=True, activation=Activation.RELU),
        head(rng, 3, pooling=Pooling.MEAN),
        head(rng, 7, transform=Transform.POOLER_DENSE, own_dense=True),
        head(rng, 40, transform=Transform.DENSE, own_dense=True, activation=Activation.IDENTITY),
        None,
    ]
    every_site = spec.sites
    both = tuple(Placement)
    upper = dataclasses.replace(spec, k=max(spec.k, spec.layers // 2))
    return [
        lora_adapter(rng, 4, spec=spec, head=heads[0]),
        lora_adapter(rng, 8, spec=spec, sites=every_site, head=heads[1]),
        lora_adapter(rng, 16, spec=spec, sites=(Site.K, Site.FC1), head=heads[2]),
        lora_adapter(rng, 4, spec=spec, sites=every_site, head=heads[3]),
        lora_adapter(rng, 4, spec=upper, head=heads[4]),
        lora_adapter(rng, 16, spec=spec, sites=(Site.O, Site.FC2, Site.Q), head=heads[5]),
        bottleneck_adapter(rng, 16, spec=spec, head=heads[6]),
        bottleneck_adapter(rng, 48, spec=spec, places=both, head=heads[7]),
        bottleneck_adapter(
            rng, 16, spec=spec, places=both, before_norm=False, activation=Activation.SWISH, head=heads[0]
        ),
        bottleneck_adapter(rng, 48, spec=spec, before_norm=False, activation=Activation.GELU, head=heads[1]),
        bottleneck_adapter(rng, 16, spec=upper, places=both, activation=Activation.GELU, head=heads[2]),
        bottleneck_adapter(rng, 16, spec=spec, places=both, activation=Activation.RELU, head=heads[3]),
        head_adapter(head(rng, 5)),
        head_adapter(head(rng, 2, transform=Transform.POOLER)),
        lora_adapter(rng, 8, spec=spec, head=None),
        bottleneck_adapter(rng, 1, spec=spec, places=(Placement.ATTENTION,), before_norm=False, head=heads[4]),
    ]
