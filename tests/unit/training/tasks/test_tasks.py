"""Each task is learnt on a tiny model, and the engine's answers agree with the evaluation."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hmi.adapters import Adapter, AdapterKind, Pooling
from hmi.adapters.formats import save_adapter
from hmi.errors import InvalidInput
from hmi.items import Classification, Embedding, Item, ModelRef, Tagging, Task
from hmi.spec import TaskKind
from hmi.training.adapter import train_adapter
from hmi.training.data import MultiLabelExample, PairExample, Span, TaggedExample
from hmi.training.plan import TrainConfig
from hmi.training.tasks import tag_labels
from hmi.training.tasks.tagging import entities_of
from tests.engines import FolderSource, tiny_engine
from tests.tiny import tiny_base

CONFIG = TrainConfig(rank=16, epochs=16, batch_size=32, learning_rate=5e-3, patience=16, dtype="float32")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"), k=2)


def served(base: Path, adapter: Adapter, texts: Sequence[str], task: Task, folder: Path) -> list[object]:
    """What the engine answers."""
    source = FolderSource({"base": base})
    source.adapters["own"] = folder / "adapter.safetensors"
    save_adapter(adapter, source.adapters["own"])
    with tiny_engine(source) as engine:
        items = [Item(ModelRef("base", "general", "own"), task, text=text) for text in texts]
        outcomes = engine.submit(items).result(60)
    assert [outcome.error for outcome in outcomes] == [None] * len(texts)
    return [outcome.result for outcome in outcomes]


def several(count: int, seed: int) -> list[MultiLabelExample]:
    """Label `lN` is true where word wN is in the text, for N in 0..2."""
    drawn = random.Random(seed)
    found = []
    for _ in range(count):
        true = [number for number in range(3) if drawn.random() < 0.4]
        words = [f"w{number}" for number in true] + [f"w{drawn.randrange(10, 90)}" for _ in range(4)]
        drawn.shuffle(words)
        found.append(MultiLabelExample(" ".join(words), tuple(f"l{number}" for number in true)))
    return found


def tagged(count: int, seed: int, *, entities: bool) -> list[TaggedExample]:
    """Words w0 and w1 begin an entity A or B, which continues over w2 and w3."""
    drawn = random.Random(seed)
    found = []
    for _ in range(count):
        words, spans, tags = [], [], []
        place = 0
        for _ in range(drawn.randrange(2, 5)):
            name = drawn.choice(["A", "B", None])
            more = [drawn.choice(["w2", "w3"]) for _ in range(drawn.randrange(3))] if name else []
            some = [{"A": "w0", "B": "w1", None: f"w{drawn.randrange(10, 90)}"}[name], *more]
            length = len(" ".join(some))
            if name:
                spans.append(Span(place, place + length, name))
            tags += [f"B-{name}", *[f"I-{name}"] * len(more)] if name else ["O"]
            words += some
            place += length + 1
        if entities:
            found.append(TaggedExample(" ".join(words), tuple(spans), entities=True))
        else:
            ends = np.cumsum([len(word) + 1 for word in words]).tolist()
            each = zip(words, ends, tags, strict=True)
            by_word = tuple(Span(end - 1 - len(word), end - 1, tag) for word, end, tag in each)
            found.append(TaggedExample(" ".join(words), by_word, entities=False))
    return found


def test_several_labels_are_learnt_and_served_when_each_has_its_word(base: Path, tmp_path: Path) -> None:
    dev = several(60, 2)
    trained = train_adapter(base, several(300, 1), CONFIG, dev)
    report = trained.report
    assert report.task is TaskKind.MULTI_LABEL
    assert report.dev is not None
    assert report.dev.score > 0.7 > 2 * (report.baseline or 1)
    answers = served(base, trained.adapter, [each.text for each in dev], Task.CLASSIFY, tmp_path)
    whole = 0
    for example, answer in zip(dev, answers, strict=True):
        assert isinstance(answer, Classification)
        said = {label for label, prob in zip(answer.labels, answer.probs, strict=True) if prob > 0.5}
        whole += said == set(example.labels)
    assert whole / len(dev) == pytest.approx(report.dev.values["subset_accuracy"], abs=0.02)


@pytest.mark.parametrize("entities", [True, False])
def test_entities_are_learnt_and_served_when_their_first_word_decides(
    base: Path, tmp_path: Path, entities: bool
) -> None:
    dev = tagged(40, 2, entities=entities)
    trained = train_adapter(base, tagged(250, 1, entities=entities), CONFIG, dev)
    report = trained.report
    assert (report.task, report.labels) == (TaskKind.TOKENS, ("O", "B-A", "I-A", "B-B", "I-B"))
    assert report.dev is not None
    assert report.dev.name == "entity_f1"
    assert report.dev.score > 0.6
    assert report.baseline == 0
    assert trained.adapter.head is not None
    assert trained.adapter.head.pooling is Pooling.TOKENS
    right = said = 0
    answers = served(base, trained.adapter, [each.text for each in dev], Task.CLASSIFY, tmp_path)
    for example, answer in zip(dev, answers, strict=True):
        assert isinstance(answer, Tagging)
        assert [example.text[tag.start : tag.end] for tag in answer.tags] == example.text.split()
        spans = tuple(Span(tag.start, tag.end, tag.label) for tag in answer.tags)
        parts = entities_of(TaggedExample(example.text, spans, entities=False))
        said += len(parts)
        right += len(set(parts) & set(entities_of(example)))
    assert right / said == pytest.approx(report.dev.values["entity_precision"], abs=0.02)


def test_word_classes_are_learnt_when_tags_are_not_bio(base: Path) -> None:
    def examples(seed: int) -> list[TaggedExample]:
        parts = tagged(250, seed, entities=False)
        renamed = {"O": "other", "B-A": "a", "B-B": "b", "I-A": "more", "I-B": "more"}
        return [
            dataclasses.replace(each, spans=tuple(Span(s.start, s.end, renamed[s.label]) for s in each.spans))
            for each in parts
        ]

    report = train_adapter(base, examples(1), CONFIG, examples(2)).report
    assert report.labels == ("a", "b", "more", "other")
    assert report.dev is not None
    assert report.dev.name == "token_f1"
    assert report.dev.score > 0.75 > (report.baseline or 1)


def test_similar_texts_get_near_vectors_when_pairs_are_trained(base: Path, tmp_path: Path) -> None:
    def pairs(seed: int) -> list[PairExample]:
        """A text belongs to the one that has the same first word, whatever follows."""
        drawn = random.Random(seed)

        def rest() -> str:
            return f"w{drawn.randrange(60, 90)} w{drawn.randrange(60, 90)}"

        return [PairExample(f"w{n % 20} {rest()}", f"w{n % 20} {rest()}") for n in range(160)]

    dev = pairs(2)[:20]
    trained = train_adapter(base, pairs(1), dataclasses.replace(CONFIG, temperature=0.1), dev)
    report = trained.report
    assert (report.task, report.labels, report.label_counts) == (TaskKind.EMBEDDING, (), ())
    assert trained.adapter.head is None
    assert report.dev is not None
    assert report.baseline is not None
    assert report.dev.score > report.baseline + 0.2
    texts = [each.text for each in dev] + [each.positive for each in dev]
    found = served(base, trained.adapter, texts, Task.EMBED, tmp_path)
    vectors = np.array([answer.vector for answer in found if isinstance(answer, Embedding)])
    nearest = (vectors[:20] @ vectors[20:].T).argmax(1)
    assert (nearest == np.arange(20)).mean() == pytest.approx(report.dev.values["recall_at_1"], abs=0.051)


def test_tags_are_refused_when_some_are_bio_and_others_are_not() -> None:
    parts = TaggedExample("Ada writes", (Span(0, 3, "PER"),), entities=True)
    bio = TaggedExample("Ada", (Span(0, 3, "B-PER"),), entities=False)
    words = TaggedExample("Ada", (Span(0, 3, "NOUN"),), entities=False)
    assert tag_labels([parts, bio]) == ("O", "B-PER", "I-PER")
    with pytest.raises(InvalidInput, match="some examples name parts"):
        tag_labels([parts, words])
    with pytest.raises(InvalidInput, match="only 'NOUN'"):
        tag_labels([words])
    with pytest.raises(InvalidInput, match="no example has a labelled word"):
        tag_labels([dataclasses.replace(parts, spans=())])


def test_embedding_is_refused_when_nothing_would_be_trained(base: Path) -> None:
    config = dataclasses.replace(CONFIG, kind=AdapterKind.NONE)
    with pytest.raises(InvalidInput, match="the base model's own"):
        train_adapter(base, [PairExample("w1", "w2"), PairExample("w3", "w4")], config)
    with pytest.raises(InvalidInput, match="at least two different texts"):
        train_adapter(base, [PairExample("w1", "w2"), PairExample("w3", "w2")], CONFIG)


def test_training_stops_early_when_it_does_not_get_better(base: Path) -> None:
    """Labels that nothing in the text tells: the first epochs are as good as any."""
    drawn = random.Random(5)
    examples = [MultiLabelExample(f"w{drawn.randrange(90)}", ("x",) if drawn.random() < 0.3 else ()) for _ in range(64)]
    config = dataclasses.replace(CONFIG, epochs=40, patience=2)
    report = train_adapter(base, examples, config, examples[:32]).report
    assert report.epochs < 40
    assert report.epochs == report.best_epoch + 2
    best = max(report.dev_scores)
    assert report.dev is not None
    assert report.dev.score == report.dev_scores[report.best_epoch - 1] == best


def test_training_ends_with_the_reason_when_it_diverges(base: Path) -> None:
    config = dataclasses.replace(CONFIG, learning_rate=1e38)
    with pytest.raises(InvalidInput, match="lower learning rate"):
        train_adapter(base, several(64, 1), config)
