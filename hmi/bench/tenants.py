"""Tenants with random adapters on disk, and the `ModelSource` that finds them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hmi.adapters import Activation, Adapter, AdapterKind, Array, Bottleneck, Head, Lora, Pooling, Transform
from hmi.adapters.formats import save_adapter
from hmi.errors import NotFound
from hmi.knowledge.lookup import KnowledgeTree
from hmi.spec import HPLMSpec, Placement, Site, read_spec

# Kinds and ranks of successive tenants.
MIXED = (
    (AdapterKind.LORA, 8),
    (AdapterKind.BOTTLENECK, 48),
    (AdapterKind.LORA, 16),
    (AdapterKind.BOTTLENECK, 16),
)

_LABELS = ("negative", "positive")


class OneBase:
    """A `ModelSource` of one base model and of files in folders. Names are used as digests.

    Without a tree it has an empty one.
    """

    def __init__(self, name: str, folder: Path, tree: KnowledgeTree | None = None) -> None:
        self.name = name
        self.adapters: dict[str, Path] = {}
        self._folder = folder
        self._tree = empty_tree(read_spec(folder)) if tree is None else tree

    def base_folder(self, digest: str) -> Path:
        if digest != self.name:
            raise NotFound(f"there is no base {digest}")
        return self._folder

    def adapter_file(self, digest: str) -> Path:
        if digest not in self.adapters:
            raise NotFound(f"there is no adapter {digest}")
        return self.adapters[digest]

    def tree(self, base: str) -> KnowledgeTree:
        return self._tree


def empty_tree(spec: HPLMSpec) -> KnowledgeTree:
    """A tree of one domain, `general`, that holds nothing."""
    return KnowledgeTree(0, {"general": None}, {}, spec.row_dtype, spec.hidden_size)


def make_adapter(path: Path, spec: HPLMSpec, kind: AdapterKind, rank: int, seed: int) -> None:
    """Write an adapter with a head of two labels: LoRA on q and v, or bottlenecks after the feed-forward."""
    rng = np.random.default_rng(seed)

    def small(*shape: int) -> Array:
        return rng.standard_normal(shape, np.float32) * np.float32(0.02)

    layers, hidden = range(spec.k, spec.layers), spec.hidden_size
    lora = {
        (layer, site): Lora(small(rank, hidden), small(hidden, rank)) for layer in layers for site in (Site.Q, Site.V)
    }
    bottleneck = {
        (layer, Placement.OUTPUT): Bottleneck(small(rank, hidden), small(rank), small(hidden, rank), small(hidden))
        for layer in layers
    }
    adapter = Adapter(
        kind=kind,
        lora=lora if kind is AdapterKind.LORA else {},
        bottleneck=bottleneck if kind is AdapterKind.BOTTLENECK else {},
        adapter_before_norm=True,
        activation=Activation.RELU,
        head=Head(
            pooling=Pooling.MEAN,
            transform=Transform.NONE,
            activation=Activation.TANH,
            dense=None,
            dense_bias=None,
            out=small(len(_LABELS), hidden),
            out_bias=small(len(_LABELS)),
            labels=_LABELS,
            multi_label=False,
        ),
    )
    save_adapter(adapter, path)


def forget_pages(paths: Iterable[Path]) -> None:
    """Ask the system to drop files from its page cache, so that the next reader waits for the disk."""
    for path in paths:
        with path.open("rb+") as file:
            os.fsync(file.fileno())  # only what has been written through can be forgotten
            if hasattr(os, "posix_fadvise"):  # not everywhere
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
