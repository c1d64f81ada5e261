"""Random tenants' adapters as files that later runs find again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hmi.adapters import AdapterKind
from hmi.bench import make_adapter
from hmi.spec import HPLMSpec

MIXED = (
    (AdapterKind.LORA, 4),
    (AdapterKind.BOTTLENECK, 16),
    (AdapterKind.LORA, 8),
    (AdapterKind.BOTTLENECK, 48),
    (AdapterKind.LORA, 16),
)
"""Kinds and ranks that tenants have in turn."""

_MANIFEST = "tenants.json"
_CHUNK = 500


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
