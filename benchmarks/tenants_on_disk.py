"""Random tenants' adapters as files, and an engine's source over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmi.adapters.adapter import Activation, Adapter, AdapterKind, Bottleneck, Head, Lora, Pooling, Transform
from hmi.adapters.canonical import save_adapter
from hmi.errors import NotFound
from hmi.knowledge.tree import KnowledgeTree
from hmi.models.loader import load_spec
from hmi.spec import HPLMSpec, Placement, Site

__all__ = ["FolderSource", "random_adapters"]


class FolderSource:
    """A `ModelSource` over plain paths; names stand in for digests."""

    def __init__(self, bases: Mapping[str, Path]) -> None:
        self.bases = dict(bases)
        self.adapters: dict[str, Path] = {}

    def base_folder(self, digest: str) -> Path:
        return self.bases[digest]

    def adapter_file(self, digest: str) -> Path:
        if digest not in self.adapters:
            raise NotFound(f"there is no adapter {digest}")
        return self.adapters[digest]

    def tree(self, base: str) -> KnowledgeTree:
        spec = load_spec(self.bases[base])
        return KnowledgeTree(0, {"general": None}, {}, spec.row_dtype, spec.hidden_size)


def random_adapters(spec: HPLMSpec, folder: Path, base: str, count: int) -> dict[str, Path]:
    """Files of `count` tenants named `<base>-<number>`: LoRA 4 to 16 and bottlenecks of 16 and 48 by turns."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = [
        (AdapterKind.LORA, 4),
        (AdapterKind.BOTTLENECK, 16),
        (AdapterKind.LORA, 8),
        (AdapterKind.BOTTLENECK, 48),
        (AdapterKind.LORA, 16),
    ]
    files = {}
    for number in range(count):
        kind, rank = shapes[number % len(shapes)]
        files[f"{base}-{number}"] = folder / f"{base}-{number}.safetensors"
        save_adapter(_random_adapter(spec, kind, rank, np.random.default_rng(number)), files[f"{base}-{number}"])
    return files


def _random_adapter(spec: HPLMSpec, kind: AdapterKind, rank: int, rng: np.random.Generator) -> Adapter:
    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, 0.02, shape).astype(np.float32)

    lora, bottleneck = {}, {}
    for layer in range(spec.k, spec.layers):
        if kind is AdapterKind.LORA:
            for site in (Site.Q, Site.V):
                inputs, outputs = spec.site_shape(site)
                lora[layer, site] = Lora(normal(rank, inputs), normal(outputs, rank))
        else:
            width = spec.hidden_size
            bottleneck[layer, Placement.OUTPUT] = Bottleneck(
                normal(rank, width), normal(rank), normal(width, rank), normal(width)
            )
    head = Head(
        Pooling.MEAN,
        Transform.NONE,
        Activation.TANH,
        None,
        None,
        normal(2, spec.hidden_size),
        normal(2),
        ("no", "yes"),
        multi_label=False,
    )
    return Adapter(kind, lora, bottleneck, adapter_before_norm=True, activation=Activation.RELU, head=head)
