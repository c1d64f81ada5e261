"""Engines over folders: what tests of the engine share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from hmi.adapters import Activation, Adapter, AdapterKind, Bottleneck, Head, Lora, Pooling, Transform
from hmi.adapters.maths import HeadTensors, NoAdapters, SingleAdapter, apply_head
from hmi.engine import Engine, EngineConfig
from hmi.engine.stages import ComputedBatch, StagedBatch
from hmi.errors import NotFound
from hmi.items import Classification, Embedding, Item, ModelRef, Outcome, Task
from hmi.knowledge.lookup import KnowledgeTree
from hmi.models.families import HBert
from hmi.spec import HPLMSpec, Placement, Site, read_spec

__all__ = [
    "FolderSource",
    "keep_batches",
    "mixed_items",
    "numbers",
    "plain_answer",
    "random_adapter",
    "random_head",
    "tiny_engine",
]


class FolderSource:
    """A `ModelSource` over plain paths. Names serve as digests."""

    def __init__(self, bases: Mapping[str, Path]) -> None:
        self.bases = dict(bases)
        self.adapters: dict[str, Path] = {}
        self.trees: dict[str, KnowledgeTree] = {}

    def base_folder(self, digest: str) -> Path:
        if digest not in self.bases:
            raise NotFound(f"there is no base {digest}")
        return self.bases[digest]

    def adapter_file(self, digest: str) -> Path:
        if digest not in self.adapters:
            raise NotFound(f"there is no adapter {digest}")
        return self.adapters[digest]

    def tree(self, base: str) -> KnowledgeTree:
        if base in self.trees:
            return self.trees[base]
        spec = read_spec(self.base_folder(base))
        return KnowledgeTree(0, {"general": None}, {}, spec.row_dtype, spec.hidden_size)


def tiny_engine(
    source: FolderSource,
    *,
    device_adapter_bytes: int = 4 * 1024**2,
    batch_rows: int = 8,
    device: str = "cpu",
    dtype: str = "float32",
    miss_cache_bytes: int = 1024**2,
    delta_bytes: int = 1024**2,
) -> Engine:
    """An engine with small batches, so that there are many; in float32 on one CPU thread by default."""
    config = EngineConfig(
        device=device,
        dtype=dtype,
        threads=1,
        batch_tokens=256,
        batch_rows=batch_rows,
        host_adapter_bytes=64 * 1024**2,
        device_adapter_bytes=device_adapter_bytes,
        miss_cache_bytes=miss_cache_bytes,
        delta_bytes=delta_bytes,
        cache_bytes=8 * 1024**2,
    )
    return Engine(config, source)


def mixed_items(base: str, count: int, *, seed: int) -> list[Item]:
    """Texts of 1 to 29 words for twelve tenants' adapters `<base>-0` ... by chance, four in five to be classified."""
    rng = np.random.default_rng(seed)
    return [
        Item(
            ModelRef(base, "general", f"{base}-{rng.integers(12)}"),
            Task.CLASSIFY if rng.random() < 0.8 else Task.EMBED,
            text=" ".join(f"w{word}" for word in rng.integers(0, 40, rng.integers(1, 30))),
        )
        for _ in range(count)
    ]


def keep_batches(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[ComputedBatch]:
    """A list to which each batch that the engine computes from now on is added."""
    ran: list[ComputedBatch] = []
    run = engine._runner.run

    def run_and_keep(batch: StagedBatch) -> list[ComputedBatch]:
        parts = run(batch)
        ran.extend(parts)
        return parts

    monkeypatch.setattr(engine._runner, "run", run_and_keep)
    return ran


def numbers(outcomes: Sequence[Outcome]) -> list[np.ndarray]:
    """Probabilities or vectors of outcomes that all succeeded."""
    found = []
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        match outcome.result:
            case Classification(probs=probs):
                found.append(np.array(probs))
            case Embedding(vector=vector):
                found.append(vector)
    return found


@torch.no_grad()
def plain_answer(model: HBert, adapter: Adapter | None, ids: Sequence[int], task: Task) -> np.ndarray:
    """What an engine must answer to one sequence, by the plain maths of one adapter on a model with k = 0."""
    maths = SingleAdapter.of(adapter) if adapter else NoAdapters()
    mask = torch.ones(1, len(ids), dtype=torch.bool)
    hidden = model.upper(model.embed(torch.tensor([ids])), mask, maths)
    if task is Task.EMBED:
        vector: np.ndarray = functional.normalize(hidden.mean(1), dim=-1)[0].numpy()
        return vector
    if adapter is None or adapter.head is None:
        raise ValueError("no head")
    logits = apply_head(adapter.head, HeadTensors.of(adapter.head), hidden, mask, model.pool)[0]
    probs: np.ndarray = (logits.sigmoid() if adapter.head.multi_label else logits.softmax(-1)).numpy()
    return probs


def random_head(spec: HPLMSpec, labels: int, rng: np.random.Generator, *, pooling: Pooling = Pooling.MEAN) -> Head:
    return Head(
        pooling=pooling,
        transform=Transform.NONE,
        activation=Activation.TANH,
        dense=None,
        dense_bias=None,
        out=_normal(rng, labels, spec.hidden_size),
        out_bias=_normal(rng, labels),
        labels=tuple(f"L{number}" for number in range(labels)),
        multi_label=False,
    )


def random_adapter(spec: HPLMSpec, kind: AdapterKind, rank: int, labels: int, seed: int) -> Adapter:
    """Weights wide enough for a wrong row, rank or tenant to show."""
    rng = np.random.default_rng(seed)
    layers = range(spec.k, spec.layers)
    lora: dict[tuple[int, Site], Lora] = {}
    bottleneck: dict[tuple[int, Placement], Bottleneck] = {}
    if kind is AdapterKind.LORA:
        for layer in layers:
            for site in (Site.Q, Site.V, Site.FC1):
                inputs, outputs = spec.site_shape(site)
                lora[layer, site] = Lora(_normal(rng, rank, inputs), _normal(rng, outputs, rank))
    if kind is AdapterKind.BOTTLENECK:
        for layer in layers:
            bottleneck[layer, Placement.OUTPUT] = Bottleneck(
                _normal(rng, rank, spec.hidden_size),
                _normal(rng, rank),
                _normal(rng, spec.hidden_size, rank),
                _normal(rng, spec.hidden_size),
            )
    before_norm = bool(seed % 2)
    return Adapter(kind, lora, bottleneck, before_norm, Activation.GELU, random_head(spec, labels, rng))


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 0.3, shape).astype(np.float32)
