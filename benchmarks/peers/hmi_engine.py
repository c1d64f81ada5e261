"""HMI through its own face: token ids submitted, outcomes received, everything between them counted.

`hmi_k0` serves the model as it is. `hmi_k6` looks its lower layers up; its tree holds every n-gram of the sequences,
and a run in which one had to be computed is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.plan import NO_TENANT, Batch, Depth, Plan, Workload, adapter_folder, base_folder
from benchmarks.serving import make_computed_tree, results
from hmi.adapters import AdapterKind
from hmi.adapters.formats import read_adapter, save_adapter
from hmi.bench import OneBase
from hmi.engine import Engine, EngineConfig
from hmi.items import Classification, Item, ModelRef, Task
from hmi.knowledge import unigrams, window_keys
from hmi.knowledge.lookup import KnowledgeTree
from hmi.models.convert import convert_pretrained
from hmi.spec import HPLMSpec

_BASE = "base"
_DOMAIN = "general"


@contextmanager
def start(plan: Plan, folder: Path, variant: str) -> Iterator[_HmiRunner]:
    """Variants: `all` with k = 0 and LoRAs on every layer, `upper` with the plan's k and LoRAs above it."""
    depth = Depth(variant)
    k = plan.k if depth is Depth.UPPER else 0
    own = folder / f"hmi-{depth}"
    spec = convert_pretrained(base_folder(folder), own / "base", k=k)
    source = OneBase(_BASE, own / "base")
    source.adapters = _import_adapters(plan, folder, depth, spec, own)
    with Engine(EngineConfig(device=plan.device, dtype=plan.dtype), source) as engine:
        engine.load_base(_BASE)
        if k:
            ids = np.concatenate([batch.ids for batch in plan.batches(Workload.TENANTS, plan.in_flight)])
            engine.publish_tree(_BASE, _whole_tree(engine, spec, ids, own / "table"))
        yield _HmiRunner(engine)


class _HmiRunner:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, batches: Sequence[Batch]) -> NDArray[np.float32]:
        items = [
            Item(ModelRef(_BASE, _DOMAIN, _name(tenant)), Task.CLASSIFY, tokens=tuple(ids))
            for batch in batches
            for ids, tenant in zip(batch.ids.tolist(), batch.tenants, strict=True)
        ]
        return np.array([each.probs for each in results(self._engine, items, Classification)], np.float32)

    def check(self) -> None:
        computed = self._engine.stats().computed_windows
        if computed:
            raise RuntimeError(f"{computed} n-grams were not in the tree and had to be computed")


def _import_adapters(plan: Plan, folder: Path, depth: Depth, spec: HPLMSpec, own: Path) -> dict[str, Path]:
    """The tenants' files as HMI imports them, and one head without adapters under it."""
    files = {}
    for tenant in range(plan.stored_tenants if depth is Depth.UPPER else plan.tenants):
        adapter = read_adapter(adapter_folder(folder, depth, tenant), spec)
        files[_name(tenant)] = own / f"{tenant}.safetensors"
        save_adapter(adapter, files[_name(tenant)])
        if tenant == 0:
            files[_name(NO_TENANT)] = own / "none.safetensors"
            save_adapter(dataclasses.replace(adapter, kind=AdapterKind.NONE, lora={}), files[_name(NO_TENANT)])
    return files


def _whole_tree(engine: Engine, spec: HPLMSpec, ids: NDArray[np.int64], folder: Path) -> KnowledgeTree:
    """A tree with every window of ids `[sequences, tokens]`."""
    lengths = np.full(len(ids), ids.shape[1])
    keys = np.unique(np.concatenate([window_keys(ids.reshape(-1), lengths), unigrams(spec.vocab_size)]))
    return make_computed_tree(engine, _BASE, spec, keys, folder)


def _name(tenant: int) -> str:
    return "none" if tenant == NO_TENANT else str(tenant)
