"""The engine on a device against the engine on the CPU: `python -m pytest -m gpu tests/gpu`."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from hmi.adapters import AdapterKind
from hmi.adapters.formats import save_adapter
from hmi.items import Item, ModelRef, Task
from hmi.models.convert import convert_pretrained
from hmi.spec import read_spec
from tests.engines import FolderSource, numbers, random_adapter, tiny_engine
from tests.tiny import tiny_bert_folder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

DEVICE = "cuda:0"
TENANTS = 9


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """The same tiny BERT as `k0` and `k2`, with tenants of both kinds and several ranks each."""
    root = tmp_path_factory.mktemp("bases")
    folder = tiny_bert_folder(root / "bert")
    convert_pretrained(folder, root / "k0")
    convert_pretrained(folder, root / "k2", k=2)
    source = FolderSource({"k0": root / "k0", "k2": root / "k2"})
    for base in source.bases:
        _save_tenants(source, base, root)
    return source


def _save_tenants(source: FolderSource, base: str, root: Path) -> None:
    spec = read_spec(source.bases[base])
    for number in range(TENANTS):
        kind = (AdapterKind.LORA, AdapterKind.BOTTLENECK, AdapterKind.NONE)[number % 3]
        path = root / f"{base}-{number}.safetensors"
        save_adapter(random_adapter(spec, kind, 4 + number, 2 + number % 4, number), path)
        source.adapters[f"{base}-{number}"] = path


def _items(base: str, count: int) -> list[Item]:
    rng = random.Random(1)
    return [
        Item(
            ModelRef(base, "general", f"{base}-{rng.randrange(TENANTS)}"),
            Task.CLASSIFY if rng.random() < 0.7 else Task.EMBED,
            text=" ".join(f"w{rng.randrange(40)}" for _ in range(rng.randrange(1, 30))),
        )
        for _ in range(count)
    ]


def _answers(source: FolderSource, base: str, device: str, dtype: str) -> list[np.ndarray]:
    with tiny_engine(source, device=device, dtype=dtype) as engine:
        return numbers(engine.submit(_items(base, 80)).result(120))


@pytest.mark.parametrize("base", ["k0", "k2"])
def test_the_device_answers_as_the_cpu_does_in_float32(source: FolderSource, base: str) -> None:
    expected, found = (_answers(source, base, device, "float32") for device in ("cpu", DEVICE))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("base", ["k0", "k2"])
def test_the_device_is_as_near_to_float32_as_the_cpu_is_in_bfloat16(source: FolderSource, base: str) -> None:
    exact = np.concatenate(_answers(source, base, "cpu", "float32"))
    near, found = (np.concatenate(_answers(source, base, device, "bfloat16")) for device in ("cpu", DEVICE))
    # Both round at every step, each in its own order: their errors agree in size, not number by number.
    assert np.abs(found - exact).mean() < 2 * np.abs(near - exact).mean()
    assert np.abs(found - exact).max() < 3 * np.abs(near - exact).max()


def test_an_answer_on_the_device_does_not_depend_on_batch_mates(source: FolderSource) -> None:
    items = _items("k2", 40)
    with tiny_engine(source, device=DEVICE) as engine:
        together = numbers(engine.submit(items).result(120))
        alone = [numbers(engine.submit([item]).result(120))[0] for item in items]
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-5)
