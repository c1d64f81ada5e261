from __future__ import annotations

from pathlib import Path

import pytest

from hmi.adapters import AdapterKind
from hmi.adapters.formats import save_adapter
from hmi.models.convert import convert_pretrained
from hmi.spec import read_spec
from tests.engines import FolderSource, random_adapter
from tests.tiny import tiny_bert_folder

KINDS = [
    (AdapterKind.LORA, 4),
    (AdapterKind.LORA, 8),
    (AdapterKind.LORA, 16),
    (AdapterKind.BOTTLENECK, 16),
    (AdapterKind.BOTTLENECK, 48),
    (AdapterKind.NONE, 0),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Bases `k0` and `k2`, and for each 12 adapters `k0-0` ... of all kinds with 2 to 7 labels."""
    root = tmp_path_factory.mktemp("source")
    folder = tiny_bert_folder(root / "bert")
    bases: dict[str, Path] = {}
    for k in (0, 2):
        bases[f"k{k}"] = root / f"k{k}"
        convert_pretrained(folder, bases[f"k{k}"], k=k)
    source = FolderSource(bases)
    for name, path in bases.items():
        for number in range(12):
            kind, rank = KINDS[number % len(KINDS)]
            adapter = random_adapter(read_spec(path), kind, rank, (2, 3, 7)[number % 3], seed=number)
            source.adapters[f"{name}-{number}"] = root / f"{name}-{number}.safetensors"
            save_adapter(adapter, source.adapters[f"{name}-{number}"])
    return source
