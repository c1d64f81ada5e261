"""The last layer is computed for first tokens alone where no other is used; answers are the same.

Every answer is held against transformers, or against the plain maths of one adapter for one sequence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from hmi.adapters import Activation, Adapter, AdapterKind, Head, Pooling, Transform
from hmi.adapters.formats import save_adapter
from hmi.engine import Engine, EngineConfig
from hmi.items import Item, ModelRef, Task
from hmi.models.convert import convert_pretrained
from hmi.models.families import HBert, load_hbert
from tests.adapter_samples import sixteen_tenants
from tests.engines import FolderSource, keep_batches, numbers, plain_answer
from tests.tiny import tiny_bert_folder

LABELS = (2, 3, 7)


@dataclasses.dataclass
class Tenants:
    """Sixteen tenants `k0-0` ... of base `k0`, sixteen of `k2`, and three whose head transformers has made."""

    source: FolderSource
    adapters: dict[str, Adapter]
    model: HBert
    classifiers: dict[str, BertForSequenceClassification]

    def expected(self, items: Sequence[Item]) -> list[np.ndarray]:
        return [
            plain_answer(
                self.model,
                self.adapters[item.model.adapter] if item.model.adapter else None,
                item.tokens or (),
                item.task,
            )
            for item in items
        ]

    def names(self, base: str, *, pooling: Pooling) -> list[str]:
        """Tenants whose head reads so."""
        heads = {name: adapter.head for name, adapter in self.adapters.items() if name.startswith(f"{base}-")}
        return [name for name, head in heads.items() if head is not None and head.pooling is pooling]


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Tenants:
    root = tmp_path_factory.mktemp("tenants")
    folder = tiny_bert_folder(root / "bert")
    source, adapters = FolderSource({"k0": root / "k0", "k2": root / "k2"}), dict[str, Adapter]()
    for k in (0, 2):
        spec = convert_pretrained(folder, root / f"k{k}", k=k)
        adapters |= {f"k{k}-{number}": adapter for number, adapter in enumerate(sixteen_tenants(spec))}
    classifiers = {f"plain-{labels}": _classifier(folder, labels) for labels in LABELS}
    adapters |= {name: _imported(classifier) for name, classifier in classifiers.items()}
    for name, adapter in adapters.items():
        source.adapters[name] = root / f"{name}.safetensors"
        save_adapter(adapter, source.adapters[name])
    return Tenants(source, adapters, load_hbert(root / "k0"), classifiers)


def _classifier(folder: Path, labels: int) -> BertForSequenceClassification:
    torch.manual_seed(labels)
    classifier: BertForSequenceClassification = BertForSequenceClassification.from_pretrained(folder, num_labels=labels)
    classifier.train(mode=False)
    with torch.no_grad():
        classifier.classifier.weight.normal_(0, 0.3)
        classifier.classifier.bias.normal_(0, 0.3)
    return classifier


def _imported(classifier: BertForSequenceClassification) -> Adapter:
    weight, bias = (each.detach().numpy() for each in (classifier.classifier.weight, classifier.classifier.bias))
    labels = tuple(f"L{number}" for number in range(len(bias)))
    head = Head(Pooling.CLS, Transform.POOLER, Activation.TANH, None, None, weight, bias, labels, multi_label=False)
    return Adapter(AdapterKind.NONE, {}, {}, adapter_before_norm=True, activation=Activation.RELU, head=head)


def _item(base: str, adapter: str | None, number: int, task: Task = Task.CLASSIFY) -> Item:
    rng = np.random.default_rng(number)
    words = rng.integers(5, 100, int(rng.integers(1, 20)))
    return Item(ModelRef(base, "general", adapter), task, tokens=(2, *words.tolist(), 3))


def _answer(
    source: FolderSource, items: Sequence[Item], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[np.ndarray], bool]:
    """What one batch of all items gives, and whether it was run for first tokens alone."""
    config = EngineConfig(
        "cpu", "float32", threads=1, batch_tokens=4096, batch_rows=256, padding_share=1.0, batch_cost=4096
    )
    with Engine(config, source) as engine:
        ran = keep_batches(engine, monkeypatch)
        answers = numbers(engine.submit(items).result(60))
    (batch,) = ran
    return answers, batch.staged.layout.first_only


def _assert_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_answers_are_those_of_transformers_when_all_heads_read_its_pooler(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [_item("k0", f"plain-{LABELS[number % 3]}", number) for number in range(24)]
    found, first_only = _answer(tenants.source, items, monkeypatch)
    assert first_only
    for item, probs in zip(items, found, strict=True):
        with torch.no_grad():
            logits = tenants.classifiers[str(item.model.adapter)](input_ids=torch.tensor([item.tokens])).logits
        np.testing.assert_allclose(probs, logits.softmax(-1)[0].numpy(), rtol=0, atol=1e-5)


def test_answers_are_each_tenants_own_when_all_heads_read_the_first_token(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tenants.names("k0", pooling=Pooling.CLS)
    assert len(names) >= 12
    items = [_item("k0", name, number) for number, name in enumerate([*names, *names])]
    found, first_only = _answer(tenants.source, items, monkeypatch)
    assert first_only
    _assert_equal(found, tenants.expected(items))


def test_answers_are_the_same_when_all_sequences_are_equally_long(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then no mask is made."""
    names = tenants.names("k0", pooling=Pooling.CLS)
    items = [
        dataclasses.replace(_item("k0", name, number), tokens=(2, 5 + number, 7, 90 - number, 3))
        for number, name in enumerate(names)
    ]
    found, first_only = _answer(tenants.source, items, monkeypatch)
    assert first_only
    _assert_equal(found, tenants.expected(items))


@pytest.mark.parametrize("beside", ["embedding", "mean head", "both"])
def test_answers_are_each_tenants_own_when_somebody_reads_all_tokens(
    tenants: Tenants, beside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [_item("k0", name, number) for number, name in enumerate(tenants.names("k0", pooling=Pooling.CLS))]
    if beside != "embedding":
        items += [
            _item("k0", name, 50 + number) for number, name in enumerate(tenants.names("k0", pooling=Pooling.MEAN))
        ]
    if beside != "mean head":
        embedded = [None, *(f"k0-{number}" for number in range(16)), None]
        items += [_item("k0", name, 100 + number, Task.EMBED) for number, name in enumerate(embedded)]
    np.random.default_rng(2).shuffle(items)
    found, first_only = _answer(tenants.source, items, monkeypatch)
    assert not first_only
    _assert_equal(found, tenants.expected(items))


def test_answers_are_the_same_with_and_without_an_embedding_beside_them_when_rows_are_looked_up(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tenants.names("k2", pooling=Pooling.CLS)
    items = [_item("k2", name, number) for number, name in enumerate(names)]
    alone, first_only = _answer(tenants.source, items, monkeypatch)
    assert first_only
    beside, first_only = _answer(tenants.source, [*items, _item("k2", None, 99, Task.EMBED)], monkeypatch)
    assert not first_only
    _assert_equal(alone, beside[:-1])
