"""Evaluations of adapters: against PEFT's own answers, and against served answers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import BertForSequenceClassification, BertForTokenClassification

from hmi.adapters import Activation, Adapter, Head, Pooling, Transform
from hmi.adapters.formats import read_adapter, save_adapter
from hmi.errors import InvalidInput
from hmi.items import Classification, Item, ModelRef, Task
from hmi.models.convert import convert_pretrained
from hmi.spec import Placement, read_spec
from hmi.training.adapter import evaluate_adapter
from hmi.training.data import AnyExample, Example, MultiLabelExample, Span, TaggedExample
from hmi.training.reports import evaluate_classes, evaluate_entities
from tests.adapter_samples import bottleneck_adapter, head, lora_adapter
from tests.engines import FolderSource, tiny_engine
from tests.tiny import tiny_bert_folder, tiny_tokenizer

LABELS = ("bad", "fair", "good")
TAGS = ("O", "B-A", "I-A")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny BERT as a transformers folder, and as a base with k = 0."""
    root = tmp_path_factory.mktemp("base")
    bert = tiny_bert_folder(root / "bert")
    convert_pretrained(bert, root / "k0")
    return bert, root / "k0"


def texts(count: int, seed: int = 1) -> list[str]:
    """Of 1 to 12 words, some longer than what the model is let read below."""
    drawn = random.Random(seed)
    return [" ".join(f"w{drawn.randrange(90)}" for _ in range(drawn.randrange(1, 13))) for _ in range(count)]


def peft_model(kind: Any, task: TaskType, bert: Path, labels: int) -> Any:
    torch.manual_seed(3)
    config = LoraConfig(task_type=task, r=4, target_modules=["query", "value"], rank_pattern={"value": 7})
    model = get_peft_model(kind.from_pretrained(bert, num_labels=labels), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "classifier" in name:
                parameter.normal_(0, 0.3)
    model.eval()
    # Random weights give every text the same label; what they answer on average is taken away.
    means = torch.stack([peft_logits(model, text, 48).reshape(-1, labels).mean(0) for text in texts(40, seed=9)])
    with torch.no_grad():
        dict(model.named_parameters())["base_model.model.classifier.modules_to_save.default.bias"].sub_(means.mean(0))
    return model


@torch.no_grad()
def peft_logits(model: Any, text: str, max_tokens: int) -> torch.Tensor:
    ids = tiny_tokenizer().encode(text).ids
    ids = ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]]
    logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return logits


def test_metrics_are_those_of_pefts_answers_when_texts_have_one_label(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    bert, base = folders
    model = peft_model(BertForSequenceClassification, TaskType.SEQ_CLS, bert, len(LABELS))
    model.save_pretrained(tmp_path)
    adapter = read_adapter(tmp_path, read_spec(base), LABELS)
    drawn = random.Random(5)
    examples = [Example(text, drawn.choice(LABELS)) for text in texts(80)]
    found = evaluate_adapter(base, adapter, examples, max_tokens=10, dtype="float32")
    said = np.array([int(peft_logits(model, each.text, 10).argmax()) for each in examples])
    true = np.array([LABELS.index(each.label) for each in examples])
    expected = evaluate_classes(LABELS, true, said).metrics
    assert found.metrics.values == expected.values
    assert found.metrics.confusion == expected.confusion
    assert len(set(said.tolist())) == 3
    np.testing.assert_array_equal(found.counts.right.sum(1), said == true)
    np.testing.assert_array_equal(found.counts.predicted.argmax(1), said)


def test_metrics_are_those_of_pefts_answers_when_words_have_labels(folders: tuple[Path, Path], tmp_path: Path) -> None:
    bert, base = folders
    model = peft_model(BertForTokenClassification, TaskType.TOKEN_CLS, bert, len(TAGS))
    model.save_pretrained(tmp_path)
    adapter = read_adapter(tmp_path, read_spec(base), TAGS)
    drawn = random.Random(5)
    examples, true, said = [], [], []
    for text in texts(60):
        words = text.split()
        tags = [drawn.choice(TAGS) for _ in words]
        ends = np.cumsum([len(word) + 1 for word in words]).tolist()
        spans = (Span(end - 1 - len(word), end - 1, tag) for word, end, tag in zip(words, ends, tags, strict=True))
        examples.append(TaggedExample(text, tuple(spans), entities=False))
        best = peft_logits(model, text, 48).argmax(-1)[1:-1].tolist()
        true.append(named(tags))
        said.append(named([TAGS[number] for number in best]))
    found = evaluate_adapter(base, adapter, examples, dtype="float32")
    assert found.metrics.values == evaluate_entities(("A",), true, said).metrics.values
    assert 0 < found.metrics.score < 1


def named(tags: list[str]) -> list[Span]:
    """Parts that tags name, by places of words: what follows `O` is a beginning, whatever it is called."""
    found: list[Span] = []
    for place, tag in enumerate(tags):
        if tag == "I-A" and found and found[-1].end == place - 1 and tags[place - 1] != "O":
            found[-1] = Span(found[-1].start, place, "A")
        elif tag != "O":
            found.append(Span(place, place, "A"))
    return found


def samples() -> dict[str, Adapter]:
    rng = np.random.default_rng(3)
    dense = head(rng, transform=Transform.DENSE, own_dense=True, activation=Activation.RELU)
    pooled = head(rng, transform=Transform.POOLER_DENSE, own_dense=True, multi_label=True)
    return {
        "houlsby": bottleneck_adapter(
            rng, 5, places=tuple(Placement), before_norm=False, activation=Activation.SWISH, head=dense
        ),
        "pfeiffer": bottleneck_adapter(rng, 5, head=head(rng, pooling=Pooling.MEAN)),
        "lora": lora_adapter(rng, 3, head=pooled),
    }


@pytest.mark.parametrize("name", samples())
def test_metrics_are_those_of_served_answers(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    _, base = folders
    adapter = samples()[name]
    assert adapter.head is not None
    labels, drawn = adapter.head.labels, random.Random(2)
    examples: list[AnyExample] = []
    for text in texts(40):
        several = tuple(label for label in labels if drawn.random() < 0.4)
        one = drawn.choice(labels)
        examples.append(MultiLabelExample(text, several) if adapter.head.multi_label else Example(text, one))
    source = FolderSource({"base": base})
    source.adapters["own"] = tmp_path / "adapter.safetensors"
    save_adapter(adapter, source.adapters["own"])
    items = [Item(ModelRef("base", "general", "own"), Task.CLASSIFY, text=each.text) for each in examples]
    with tiny_engine(source) as engine:
        outcomes = engine.submit(items).result(60)
    said = []
    for outcome in outcomes:
        assert isinstance(outcome.result, Classification)
        probs = np.array(outcome.result.probs)
        said.append(probs > 0.5 if adapter.head.multi_label else probs == probs.max())
    found = evaluate_adapter(base, adapter, examples, dtype="float32")
    np.testing.assert_array_equal(found.counts.predicted, np.array(said, np.int32))
    assert len(np.unique(said, axis=0)) > 1
    counts = found.counts
    assert found.metrics.score == counts.right.sum() * 2 / (counts.predicted.sum() + counts.true.sum())


@pytest.mark.parametrize(
    ("adapter", "example", "reason"),
    [
        (lora_adapter(np.random.default_rng(1)), Example("w1", "a"), "has no head"),
        (samples()["pfeiffer"], Example("w1", "bad"), "does not give: 'bad'; the adapter's are 'label 0', 'label 1'"),
        (samples()["lora"], Example("w1", "label 0"), "labelled for classification, and .* head is for multi_label"),
        (samples()["pfeiffer"], MultiLabelExample("w1", ()), "labelled for multi_label"),
    ],
)
def test_text_is_refused_when_the_adapter_cannot_give_its_labels(
    folders: tuple[Path, Path], adapter: Adapter, example: AnyExample, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        evaluate_adapter(folders[1], adapter, [example])


def test_bio_tags_are_refused_when_the_adapters_labels_are_not_bio(folders: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(1)
    plain = head(rng, 4, pooling=Pooling.TOKENS)
    odd = Head(**{name: getattr(plain, name) for name in plain.__slots__} | {"labels": (*TAGS, "X")})
    example = TaggedExample("w1 w2", (Span(0, 2, "A"),), entities=True)
    with pytest.raises(InvalidInput, match="not all of the adapter's do"):
        evaluate_adapter(folders[1], lora_adapter(rng, head=odd), [example])
