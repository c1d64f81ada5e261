"""The config for retraining an adapter, or for a training that starts from it: the same kind, size and places."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from hmi.adapters import Adapter, AdapterKind, Bottleneck, Head, Lora, Pooling, Transform
from hmi.spec import HPLMSpec, Placement, Site
from hmi.training.plan.config import TrainConfig


def config_like(
    adapter: Adapter, head: Head, spec: HPLMSpec, labels: Collection[str], how: TrainConfig
) -> tuple[TrainConfig, tuple[str, ...]]:
    """`how` with the adapter's kind, size and places, and in words how a retrained adapter will differ from it.

    `head` and `spec` are those of the adapter, `labels` those of the text to train on.
    """
    places = [*adapter.lora, *adapter.bottleneck]
    parts: tuple[Lora | Bottleneck, ...] = (*adapter.lora.values(), *adapter.bottleneck.values())
    ranks = sorted({part.rank for part in parts})
    differs = []
    if len(ranks) > 1:
        listed = f"{', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
        differs.append(f"its ranks are {listed}, and a retrained one has the largest everywhere")
    config = _shaped_like(adapter, how)
    each = len(config.sites) if adapter.kind is AdapterKind.LORA else len(config.placements)
    if places and len(places) < each * (spec.layers - config.lowest_layer):
        differs.append(
            f"it does not have the same in every layer, and a retrained one does, in all from {config.lowest_layer}"
        )
    if head.transform is not Transform.NONE:
        differs.append("its head has a layer of its own before the labels, and a retrained one's is linear")
    if missing := len(set(head.labels) - set(labels)):
        some = "one of its labels is" if missing == 1 else f"{missing} of its labels are"
        differs.append(f"{some} nowhere in the text, and a retrained one will not know it")
    return config, tuple(differs)


def config_from_start(adapter: Adapter, how: TrainConfig) -> TrainConfig:
    """`how` for a training that starts from the adapter: its kind, size and places, with fewer epochs and a lower rate.

    So four domains' full models lost least accuracy when their lower layers were replaced by the lookup; at the usual
    rate they lost what the adapters on the lower layers had contributed (`python -m benchmarks.accuracy`).
    """
    return dataclasses.replace(_shaped_like(adapter, how), epochs=2, learning_rate=1e-3)


def _shaped_like(adapter: Adapter, how: TrainConfig) -> TrainConfig:
    head = adapter.head
    layers = {layer for layer, _ in [*adapter.lora, *adapter.bottleneck]}
    config = dataclasses.replace(
        how,
        kind=adapter.kind,
        rank=max(1, adapter.rank),
        lowest_layer=min(layers, default=0),
        pooling=how.pooling if head is None or head.pooling is Pooling.TOKENS else head.pooling,
    )
    if adapter.kind is AdapterKind.LORA:
        sites = {site for _, site in adapter.lora}
        config = dataclasses.replace(config, sites=tuple(site for site in Site if site in sites))
    if adapter.kind is AdapterKind.BOTTLENECK:
        placed = {place for _, place in adapter.bottleneck}
        config = dataclasses.replace(
            config,
            placements=tuple(place for place in Placement if place in placed),
            before_norm=adapter.adapter_before_norm,
            activation=adapter.activation,
        )
    return config
