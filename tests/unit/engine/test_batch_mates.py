"""Batch-mates change nothing in an answer: any tenants, kinds, ranks, heads and lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hmi.adapters import Activation, Adapter, AdapterKind, Head, Pooling, Transform
from hmi.adapters.formats import save_adapter
from hmi.engine import Engine, EngineConfig
from hmi.items import Item, ModelRef, Task
from hmi.models.convert import convert_pretrained
from hmi.spec import HPLMSpec, read_spec
from tests.engines import FolderSource, numbers, random_adapter
from tests.tiny import tiny_bert_folder

BASES = ("k0", "k2")
BODIES = [
    (AdapterKind.LORA, 1),
    (AdapterKind.LORA, 4),
    (AdapterKind.LORA, 16),
    (AdapterKind.BOTTLENECK, 3),
    (AdapterKind.BOTTLENECK, 16),
    (AdapterKind.BOTTLENECK, 48),
    (AdapterKind.NONE, 0),
]
HEADS = [
    (Pooling.MEAN, Transform.NONE, 2, False),
    (Pooling.CLS, Transform.NONE, 3, False),
    (Pooling.CLS, Transform.POOLER, 1, True),
    (Pooling.MEAN, Transform.DENSE, 7, True),
    (Pooling.CLS, Transform.POOLER_DENSE, 40, False),
]
TENANTS = len(BODIES) * len(HEADS)

# Largest difference of a probability, or of an element of a normalised vector. In bfloat16 a product of another shape
# may be summed in another order, and a last bit (2^-8 of a value) grows through layers whose random weights are ten
# times as wide as a trained model's: 0.013 was the largest difference in 21,000 answers. In float32 it was 5e-7.
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.03}


@dataclass
class Site:
    """An engine, and what it answers to an item that nothing else is in a batch with."""

    engine: Engine
    tolerance: float
    alone: dict[Item, NDArray[np.float32]] = field(default_factory=dict)
    batches: int = 0
    sequences: int = 0
    padding: int = 0

    def answer_alone(self, item: Item) -> NDArray[np.float32]:
        if item not in self.alone:
            self.alone[item] = numbers(self.engine.submit([item]).result(60))[0]
        return self.alone[item]

    def answer_together(self, items: list[Item]) -> list[NDArray[np.float32]]:
        before = self.engine.stats()
        answers = numbers(self.engine.submit(items).result(60))
        after = self.engine.stats()
        self.batches += after.batches - before.batches
        self.sequences += after.sequences - before.sequences
        self.padding += after.padded_tokens - before.padded_tokens - after.tokens + before.tokens
        return answers


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """For each base one adapter of every body with every head: `k0-0`, `k0-1`, ..."""
    root = tmp_path_factory.mktemp("tenants")
    folder = tiny_bert_folder(root / "bert")
    for base in BASES:
        convert_pretrained(folder, root / base, k=int(base[1:]))
    source = FolderSource({base: root / base for base in BASES})
    for base, path in source.bases.items():
        for number in range(TENANTS):
            source.adapters[f"{base}-{number}"] = Path(root, f"{base}-{number}.safetensors")
            save_adapter(_adapter(read_spec(path), number), source.adapters[f"{base}-{number}"])
    return source


def _adapter(spec: HPLMSpec, number: int) -> Adapter:
    kind, rank = BODIES[number % len(BODIES)]
    pooling, transform, labels, multi_label = HEADS[number % len(HEADS)]
    adapter = random_adapter(spec, kind, rank, labels, seed=number)
    assert isinstance(adapter.head, Head)
    head = replace(adapter.head, pooling=pooling, transform=transform, multi_label=multi_label)
    if transform in (Transform.DENSE, Transform.POOLER_DENSE):
        rng = np.random.default_rng(number)
        dense = rng.normal(0, 0.2, (spec.hidden_size, spec.hidden_size)).astype(np.float32)
        bias = rng.normal(0, 0.2, spec.hidden_size).astype(np.float32)
        head = replace(head, dense=dense, dense_bias=bias, activation=list(Activation)[number % len(Activation)])
    return replace(adapter, head=head)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def site(request: pytest.FixtureRequest, tenants: FolderSource) -> Iterator[Site]:
    config = EngineConfig("cpu", request.param, threads=1, batch_rows=256, padding_share=1.0)
    with Engine(config, tenants) as engine:
        yield Site(engine, TOLERANCE[request.param])


# Few texts, so that what an item is answered alone is often known already.
_ITEMS = st.tuples(
    st.integers(0, TENANTS - 1),
    st.integers(0, 11),
    st.sampled_from([Task.CLASSIFY, Task.CLASSIFY, Task.EMBED]),
)


def _item(base: str, tenant: int, text: int, task: Task) -> Item:
    rng = np.random.default_rng(text)
    words = rng.integers(0, 95, (1, 2, 3, 5, 8, 12, 17, 23, 30, 38, 44, 46)[text])
    ref = ModelRef(base, "general", f"{base}-{tenant}")
    return Item(ref, task, text=" ".join(f"w{word}" for word in words))


@pytest.mark.parametrize("base", BASES)
def test_an_answer_is_the_same_alone_and_among_any_batch_mates(site: Site, base: str) -> None:
    site.batches = site.sequences = site.padding = 0

    @settings(derandomize=True, max_examples=40, deadline=None, database=None)
    @given(st.lists(_ITEMS, min_size=8, max_size=40), st.booleans())
    def check(drawn: list[tuple[int, int, Task]], one_tenant: bool) -> None:
        items = [_item(base, drawn[0][0] if one_tenant else tenant, text, task) for tenant, text, task in drawn]
        for item, found in zip(items, site.answer_together(items), strict=True):
            np.testing.assert_allclose(found, site.answer_alone(item), rtol=0, atol=site.tolerance)

    check()
    assert site.sequences > 4 * site.batches  # they did have batch-mates,
    assert site.padding > site.sequences  # some of them longer
