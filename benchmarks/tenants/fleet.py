"""The base model, its tree, the texts and the tenants' files that all cases share."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.tenants.plan import TenantsPlan
from benchmarks.tenants_on_disk import MIXED, keep_tenants
from hmi.adapters.formats import load_adapter
from hmi.adapters.tiers import pack_adapter
from hmi.bench import SHAPES, OneBase, forget_pages, make_base, make_tree, random_texts
from hmi.devices import resolve_device, resolve_dtype
from hmi.engine import EngineConfig
from hmi.errors import InvalidInput

_BASE = "base"


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
