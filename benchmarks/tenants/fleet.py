"""The base model, its tree, the texts and the tenants' files that all cases share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.tenants.plan import TenantsPlan
from hmi.adapters import AdapterKind
from hmi.adapters.formats import load_adapter
from hmi.adapters.tiers import pack_adapter
from hmi.bench import SHAPES, OneBase, forget_pages, make_adapter, make_base, make_tree, random_texts
from hmi.devices import resolve_device, resolve_dtype
from hmi.engine import EngineConfig
from hmi.errors import InvalidInput
from hmi.spec import HPLMSpec

_BASE = "base"
# Kinds and ranks that tenants have in turn.
MIXED = (
    (AdapterKind.LORA, 4),
    (AdapterKind.BOTTLENECK, 16),
    (AdapterKind.LORA, 8),
    (AdapterKind.BOTTLENECK, 48),
    (AdapterKind.LORA, 16),
)
_MANIFEST = "tenants.json"
_CHUNK = 500


class Fleet:
    """Tenants 0, 1, ... with their files; behind them, one of each kind that only warms up and runs alone."""

    def __init__(self, root: Path, plan: TenantsPlan) -> None:
        self.plan = plan
        self.device = resolve_device(plan.device)
        self.dtype = resolve_dtype(plan.dtype, self.device)
        self.texts = random_texts(plan.sequences)
        self.spec = make_base(root / _BASE, SHAPES[plan.shape], plan.k)
        self.source = OneBase(_BASE, root / _BASE, make_tree(root / "tree", root / _BASE, self.texts))
        registered = max(plan.tenants)
        self.single = list(range(registered, registered + len(MIXED)))
        self._files = self._write(plan.folder or root / "adapters", registered + len(MIXED))
        self.source.adapters = {str(number): path for number, path in enumerate(self._files)}
        self._packed_bytes = [
            pack_adapter(load_adapter(path), self.spec.hidden_size, self.dtype).nbytes
            for path in self._files[: len(MIXED)]
        ]

    def kind(self, tenant: int) -> str:
        kind, rank = MIXED[tenant % len(MIXED)]
        return f"{kind.value}-{rank}"

    def device_bytes(self, tenants: Iterable[int]) -> int:
        """What their adapters take on the device together."""
        return sum(self._packed_bytes[tenant % len(MIXED)] for tenant in tenants)

    def config(self, device_bytes: int) -> EngineConfig:
        """With room for so many bytes of adapters on the device, and at any rate for the largest adapter."""
        zero_row = self.spec.hidden_size * self.dtype.itemsize
        return EngineConfig(
            device=self.plan.device,
            dtype=self.plan.dtype,
            host_adapter_bytes=self.plan.host_bytes,
            device_adapter_bytes=max(device_bytes, *self._packed_bytes) + zero_row,
        )

    def forget(self, tenants: Iterable[int]) -> None:
        """Put their files out of the system's page cache."""
        forget_pages([self._files[tenant] for tenant in tenants])

    def describe(self) -> dict[str, Any]:
        """Of the adapters' files, for the report."""
        return {
            "kinds": [self.kind(number) for number in range(len(MIXED))],
            "files": len(self._files),
            "file_bytes": sum(path.stat().st_size for path in self._files),
            "device_bytes_by_kind": {self.kind(number): self._packed_bytes[number] for number in range(len(MIXED))},
        }

    def _write(self, folder: Path, count: int) -> list[Path]:
        """Raises `InvalidInput` where the disk has no room for them all."""
        first = keep_tenants(folder, self.spec, len(MIXED))
        needed = sum(path.stat().st_size for path in first) * count // len(MIXED)
        free = shutil.disk_usage(folder).free + sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        if needed > free:
            raise InvalidInput(f"{count} adapters take {needed:,} bytes, and {folder} has room for {free:,}")
        return keep_tenants(folder, self.spec, count)


def keep_tenants(folder: Path, spec: HPLMSpec, count: int) -> list[Path]:
    """Files of tenants 0, 1, ... as `MIXED` says, each with weights of its own.

    What an earlier call left in `folder` for the same model is used again, and added to where there are
    fewer; for another model it is written anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / _MANIFEST
    content = {"spec": json.loads(spec.to_json()), "adapters": [[kind.value, rank] for kind, rank in MIXED]}
    found = json.loads(manifest.read_text()) if manifest.exists() else {}
    whole = found["count"] if found.get("content") == content else 0
    files = [folder / f"{number}.safetensors" for number in range(count)]

    def make(number: int) -> None:
        make_adapter(files[number], spec, *MIXED[number % len(MIXED)], seed=number)

    with ThreadPoolExecutor(2) as pool:
        for start in range(whole, count, _CHUNK):
            manifest.write_text(json.dumps({"content": content, "count": start}))  # the rest may be cut short
            list(pool.map(make, range(start, min(start + _CHUNK, count))))
    if whole < count:
        manifest.write_text(json.dumps({"content": content, "count": count}))
    return files
