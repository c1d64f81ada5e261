"""Tenants with changing models on a tiny base, over files as a worker has them."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hmi.adapters import AdapterKind
from hmi.adapters.formats import save_adapter
from hmi.engine import Engine, EngineConfig
from hmi.items import Item, ModelRef, Outcome, Task
from hmi.models.convert import convert_pretrained
from hmi.spec import read_spec
from tests.engines import FolderSource
from tests.numbered_adapters import numbered_adapter, spelt
from tests.tiny import tiny_bert_folder

__all__ = ["BASE", "Registry", "Revision", "assert_own_answers", "engine_of", "items_for"]

BASE = "tiny"
_SHAPES = [
    (AdapterKind.BOTTLENECK, 2),
    (AdapterKind.LORA, 3),
    (AdapterKind.BOTTLENECK, 7),
    (AdapterKind.NONE, 0),
    (AdapterKind.BOTTLENECK, 12),
]


@dataclass(frozen=True, slots=True)
class Revision:
    """What was served under a tenant's name at one time. Its answers alone show its `number`."""

    tenant: int
    number: int
    kind: AdapterKind
    bytes: int

    @property
    def digest(self) -> str:
        return f"adapter {self.number}"


class Registry:
    """Tenants 0, 1, ... and the revision that each is served with now. Safe to use from many threads."""

    def __init__(self, folder: Path, tenants: int) -> None:
        convert_pretrained(tiny_bert_folder(folder / "bert"), folder / BASE, k=2)
        self.source = FolderSource({BASE: folder / BASE})
        self.revisions: list[Revision] = []  # all that ever were
        self._folder = folder
        self._spec = read_spec(folder / BASE)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._current = {tenant: self._write(tenant) for tenant in range(tenants)}

    def current(self, tenants: Sequence[int]) -> list[Revision]:
        """What each of them is served with at this moment."""
        with self._lock:
            return [self._current[tenant] for tenant in tenants]

    def replace(self, tenant: int) -> Revision:
        """Serve another revision from now on; gives the one that was served before."""
        new = self._write(tenant)
        with self._lock:
            old, self._current[tenant] = self._current[tenant], new
        return old

    def _write(self, tenant: int) -> Revision:
        number = next(self._numbers)
        kind, rank = _SHAPES[number % len(_SHAPES)]
        adapter = numbered_adapter(self._spec, kind, rank, number)
        revision = Revision(tenant, number, kind, adapter.nbytes)
        path = self._folder / f"{number}.safetensors"
        save_adapter(adapter, path)
        self.source.adapters[revision.digest] = path
        self.revisions.append(revision)
        return revision


def engine_of(registry: Registry, *, host_adapter_bytes: int, device_adapter_bytes: int) -> Engine:
    """In float32 on one CPU thread, with batches of eight rows, so that there are many."""
    config = EngineConfig(
        device="cpu",
        dtype="float32",
        threads=1,
        batch_tokens=256,
        batch_rows=8,
        host_adapter_bytes=host_adapter_bytes,
        device_adapter_bytes=device_adapter_bytes,
    )
    return Engine(config, registry.source)


def items_for(revisions: Sequence[Revision], rng: random.Random) -> list[Item]:
    """A short text for each."""
    return [
        Item(
            ModelRef(BASE, "general", revision.digest),
            Task.CLASSIFY,
            text=" ".join(f"w{rng.randrange(40)}" for _ in range(rng.randrange(1, 6))),
        )
        for revision in revisions
    ]


def assert_own_answers(revisions: Sequence[Revision], outcomes: Sequence[Outcome]) -> None:
    """Each answer spells the requested revision."""
    for revision, outcome in zip(revisions, outcomes, strict=True):
        found = spelt(outcome)
        assert found.head == revision.number
        if revision.kind is AdapterKind.BOTTLENECK:
            assert found.body == revision.number
