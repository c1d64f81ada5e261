"""A decoder on a device against the same on the CPU: `python -m pytest -m gpu tests/gpu`."""

from __future__ import annotations

import random

import pytest
import torch

from hmi.adapters import AdapterKind
from hmi.adapters.formats import save_adapter
from hmi.items import Generation, GenerationParams, Item, ModelRef, Sampling, Task
from hmi.models.convert import convert_pretrained
from hmi.spec import read_spec
from tests.engines import FolderSource, random_adapter, tiny_engine
from tests.tiny import tiny_decoder_folder, tiny_gpt2, tiny_llama

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

DEVICE = "cuda:0"
TENANTS = 5
FAMILIES = {"gpt2": tiny_gpt2, "llama": tiny_llama}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Both families at k = 0 and k = 2, each with tenants of several ranks."""
    root = tmp_path_factory.mktemp("bases")
    source = FolderSource({})
    for family, make in FAMILIES.items():
        folder = tiny_decoder_folder(make(), root / family)
        for k in (0, 2):
            base = f"{family}-k{k}"
            convert_pretrained(folder, root / base, k=k)
            source.bases[base] = root / base
            for number in range(TENANTS):
                kind = (AdapterKind.LORA, AdapterKind.NONE)[number % 2]
                path = root / f"{base}-{number}.safetensors"
                save_adapter(random_adapter(read_spec(root / base), kind, 2 + number, 2, number), path)
                source.adapters[f"{base}-{number}"] = path
    return source


def _texts(source: FolderSource, base: str, device: str) -> list[tuple[int, ...]]:
    rng = random.Random(1)
    items = [
        Item(
            ModelRef(base, "general", f"{base}-{rng.randrange(TENANTS)}"),
            Task.GENERATE,
            text=" ".join(f"w{rng.randrange(40)}" for _ in range(rng.randrange(1, 30))),
            params=GenerationParams(max_tokens=rng.randrange(1, 24), sampling=Sampling(temperature=0), ignore_eos=True),
        )
        for _ in range(24)
    ]
    texts = []
    with tiny_engine(source, device=device) as engine:
        for outcome in engine.submit(items).result(120):
            assert isinstance(outcome.result, Generation), outcome.error
            texts.append(tuple(outcome.result.tokens))
    return texts


@pytest.mark.parametrize("base", ["gpt2-k0", "gpt2-k2", "llama-k0", "llama-k2"])
def test_texts_on_the_device_are_those_of_the_cpu(source: FolderSource, base: str) -> None:
    assert _texts(source, base, DEVICE) == _texts(source, base, "cpu")
