"""Retraining an imported adapter: what is kept of it, the sets of examples, and what is refused."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig, TaskType, get_peft_model
from transformers import BertForSequenceClassification

from hmi.adapters import Activation, Adapter, AdapterKind, Head, Pooling
from hmi.adapters.formats import read_adapter
from hmi.errors import InvalidInput
from hmi.models.convert import convert_pretrained
from hmi.spec import Placement, Site, read_spec
from hmi.training.adapter import evaluate_adapter
from hmi.training.data import MultiLabelExample, Span, TaggedExample, split_train_dev_test
from hmi.training.delta import DeltaConfig, train_delta
from hmi.training.imports import RetrainTarget, retrain
from hmi.training.plan import TrainConfig, config_like
from tests.adapter_samples import bottleneck_adapter, head, lora_adapter, sample_spec
from tests.sentences import sentences
from tests.tiny import tiny_bert_config, tiny_bert_folder

HOW = TrainConfig(epochs=3, batch_size=16, learning_rate=1e-2, dtype="float32")
SPEC = sample_spec()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """One model as bases with several k."""
    root = tmp_path_factory.mktemp("bases")
    bert = tiny_bert_folder(root / "bert")
    for k in (0, 1, 2):
        convert_pretrained(bert, root / f"tiny-k{k}", k=k)
    return {k: root / f"tiny-k{k}" for k in (0, 1, 2)}


def named(adapter: Adapter, labels: Sequence[str]) -> Adapter:
    assert adapter.head is not None
    return dataclasses.replace(adapter, head=dataclasses.replace(adapter.head, labels=tuple(labels)))


def two_labels(adapter_head: Head) -> Head:
    return dataclasses.replace(adapter_head, labels=("no", "yes"))


def test_lora_is_retrained_on_its_own_sites_at_its_largest_rank(bases: dict[int, Path], tmp_path: Path) -> None:
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=3, target_modules=["query", "value"], rank_pattern={"value": 5})
    model = get_peft_model(BertForSequenceClassification(tiny_bert_config(num_labels=2)), config)
    model.save_pretrained(str(tmp_path))
    adapter = read_adapter(tmp_path, read_spec(bases[0]), ["no", "yes"])
    found = retrain(bases[0], adapter, sentences(240, 1), HOW, faster=[RetrainTarget(bases[2])])
    for name, k in (("retrained-k0", 0), ("retrained-k2", 2)):
        again = found.adapters[name].adapter
        assert set(again.lora) == {(layer, site) for layer in range(k, 4) for site in (Site.Q, Site.V)}
        assert {part.rank for part in again.lora.values()} == {5}
        assert again.head is not None
        assert (again.head.labels, again.head.pooling) == (("no", "yes"), Pooling.CLS)
    notes = " ".join(found.report.notes)
    assert "its ranks are 3 and 5, and a retrained one has the largest everywhere" in notes
    assert "its head has a layer of its own before the labels" in notes
    assert "If the imported adapter was trained on it" in notes


def test_bottlenecks_are_retrained_where_and_as_they_are(bases: dict[int, Path]) -> None:
    rng = np.random.default_rng(1)
    places = tuple(Placement)
    adapter = bottleneck_adapter(
        rng, 6, places=places, before_norm=False, activation=Activation.SWISH, head=two_labels(head(rng, 2))
    )
    found = retrain(bases[0], adapter, sentences(200, 1), HOW, sentences(30, 2))
    again = found.adapters["retrained-k0"].adapter
    assert set(again.bottleneck) == {(layer, place) for layer in range(4) for place in places}
    assert (again.rank, again.adapter_before_norm, again.activation) == (6, False, Activation.SWISH)
    assert found.report.test_examples == 30
    assert not any("imported adapter" in note for note in found.report.notes)
    # What was trained is what is exported and judged: Houlsby's order and the activation too.
    standing = found.report.comparisons[1]
    judged = evaluate_adapter(bases[0], again, sentences(30, 2), dtype="float32")
    assert judged.metrics.values == standing.metrics


def test_score_deltas_are_to_the_imported_and_the_k0_adapter(bases: dict[int, Path]) -> None:
    adapter = lora_adapter(np.random.default_rng(4), 4, head=two_labels(head(np.random.default_rng(1), 2)))
    dev = sentences(60, 5)
    how = dataclasses.replace(HOW, epochs=8, patience=8)
    found = retrain(
        bases[0], adapter, sentences(300, 1), how, dev, faster=[RetrainTarget(bases[1]), RetrainTarget(bases[2])]
    )
    report = found.report
    imported, ordinary, *faster = report.comparisons
    assert [each.name for each in report.comparisons] == ["imported", "retrained-k0", "retrained-k1", "retrained-k2"]
    assert [each.base for each in report.comparisons] == ["tiny-k0", "tiny-k0", "tiny-k1", "tiny-k2"]
    assert [each.left_out for each in report.comparisons] == [(), (), (0,), (0, 1)]
    assert imported.metrics == dict(evaluate_adapter(bases[0], adapter, dev, dtype="float32").metrics.values)
    assert (imported.seconds, imported.to_imported, ordinary.to_retrained) == (None, None, None)
    assert ordinary.metrics["accuracy"] > 0.7  # it learnt what a random adapter cannot know
    for each in (ordinary, *faster):
        assert each.to_imported is not None
        gain = 100 * (each.metrics["accuracy"] - imported.metrics["accuracy"])
        assert each.to_imported.score.points == pytest.approx(gain)
        assert each.to_imported.score.standard_error > 0
        assert each.seconds is not None
        assert each.seconds > 0
    for each in faster:
        assert each.to_retrained is not None
        loss = 100 * (each.metrics["macro_f1"] - ordinary.metrics["macro_f1"])
        assert each.to_retrained.macro_f1.points == pytest.approx(loss)
    assert [each.bytes for each in report.comparisons] == sorted(
        (each.bytes for each in report.comparisons), reverse=True
    )


def test_rows_are_of_the_domain_when_a_delta_is_given(bases: dict[int, Path]) -> None:
    lines = [each.text for each in sentences(40, 8)]
    delta = train_delta(bases[2], lines, DeltaConfig(steps=4, batch_size=8)).delta
    adapter = lora_adapter(np.random.default_rng(4), 4, head=two_labels(head(np.random.default_rng(1), 2)))
    faster = [RetrainTarget(bases[2]), RetrainTarget(bases[2], delta)]
    report = retrain(bases[0], adapter, sentences(200, 1), HOW, faster=faster).report
    assert [(each.name, each.delta) for each in report.comparisons[2:]] == [
        ("retrained-k2", False),
        ("retrained-k2-2", True),
    ]


def test_multi_label_and_word_tasks_are_compared_by_their_own_metrics(bases: dict[int, Path]) -> None:
    drawn, rng = random.Random(1), np.random.default_rng(1)
    several, tagged = [], []
    for _ in range(120):
        text = " ".join(f"w{drawn.randrange(20)}" for _ in range(5))
        several.append(MultiLabelExample(text, tuple(name for name in ("w1", "w2") if name in text.split())))
        short = tuple(Span(each.start(), each.end(), "A") for each in re.finditer(r"\bw\d\b", text))
        tagged.append(TaggedExample(text, short, entities=True))
    multi = named(lora_adapter(rng, 2, head=head(rng, 3, multi_label=True)), ["w1", "w2", "w3"])
    report = retrain(bases[0], multi, several[:90], HOW, several[90:]).report
    assert (report.metric, set(report.comparisons[1].metrics)) == (
        "micro_f1",
        {"micro_f1", "macro_f1", "subset_accuracy"},
    )
    assert "one of its labels is nowhere in the text" in report.notes[0]
    words = named(lora_adapter(rng, 2, head=head(rng, 3, pooling=Pooling.TOKENS)), ["B-A", "I-A", "O"])
    how = dataclasses.replace(HOW, epochs=8, patience=8)
    found = retrain(bases[0], words, tagged[:90], how, tagged[90:])
    assert found.report.metric == "entity_f1"
    assert found.adapters["retrained-k0"].adapter.head is not None
    gap = found.report.comparisons[1].to_imported
    assert gap is not None
    assert gap.score.points > 3 * gap.score.standard_error > 0  # a random adapter does not know the words


def test_config_like_lists_what_will_differ() -> None:
    rng = np.random.default_rng(1)
    whole = lora_adapter(rng, 4, sites=(Site.FC1, Site.Q), head=head(rng, 2, pooling=Pooling.MEAN))
    assert whole.head is not None
    config, differs = config_like(whole, whole.head, SPEC, whole.head.labels, HOW)
    assert (config.sites, config.lowest_layer, config.pooling) == ((Site.Q, Site.FC1), 0, Pooling.MEAN)
    assert differs == ()
    upper = dataclasses.replace(whole, lora={key: part for key, part in whole.lora.items() if key[0] >= 2})
    config, differs = config_like(upper, whole.head, SPEC, whole.head.labels, HOW)
    assert (config.lowest_layer, differs) == (2, ())
    holes = dataclasses.replace(whole, lora={key: part for key, part in whole.lora.items() if key != (3, Site.Q)})
    _, differs = config_like(holes, whole.head, SPEC, whole.head.labels, HOW)
    assert differs == ("it does not have the same in every layer, and a retrained one does, in all from 0",)
    plain = Adapter(AdapterKind.NONE, {}, {}, True, Activation.IDENTITY, whole.head)
    config, differs = config_like(plain, whole.head, SPEC, whole.head.labels, HOW)
    assert (config.kind, differs) == (AdapterKind.NONE, ())


def test_test_set_shares_no_text_with_training_or_dev_set() -> None:
    examples = sentences(400, 1)
    learnt, choosing, judging = split_train_dev_test(examples, (), 0.1)
    parts = [{each.text for each in part} for part in (learnt, choosing, judging)]
    assert sum(map(len, (learnt, choosing, judging))) == 400
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert 16 <= len(choosing) < 80 > len(judging) >= 16
    # A dev part that is a part of the text too is not learnt from.
    learnt, choosing, judging = split_train_dev_test(examples, examples[:50], 0.1)
    assert judging == examples[:50]
    assert not {each.text for each in learnt + choosing} & {each.text for each in judging}


def test_training_resumes_when_it_was_stopped_on_the_second_base(bases: dict[int, Path], tmp_path: Path) -> None:
    adapter = lora_adapter(np.random.default_rng(4), 4, head=two_labels(head(np.random.default_rng(1), 2)))
    reported: list[str] = []

    def stop(name: str, progress: object) -> None:
        reported.append(name)
        if name == "retrained-k2":
            raise KeyboardInterrupt

    def run(**options: object) -> dict[str, np.ndarray]:
        made = retrain(bases[0], adapter, sentences(200, 1), HOW, faster=[RetrainTarget(bases[2])], **options)  # type: ignore[arg-type]
        return made.adapters["retrained-k2"].adapter.tensors()

    with pytest.raises(KeyboardInterrupt):
        run(on_progress=stop, checkpoint=lambda name: tmp_path / name)
    again: list[str] = []
    resumed = run(on_progress=lambda name, progress: again.append(name), checkpoint=lambda name: tmp_path / name)
    assert "retrained-k0" in reported
    assert set(again) == {"retrained-k2"}  # the first one was over and was not trained anew
    whole = run()
    assert resumed.keys() == whole.keys()
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)


def bare() -> Adapter:
    return lora_adapter(np.random.default_rng(1), 2)


@pytest.mark.parametrize(
    ("adapter", "base", "faster", "count", "reason"),
    [
        (bare(), 0, [], 100, "has no head"),
        (lora_adapter(np.random.default_rng(1), 2, head=head(np.random.default_rng(1), 2)), 0, [], 100, "'no', 'yes'"),
        (None, 2, [], 100, "looks 2 lower layers up"),
        (None, 0, [0], 100, "has k = 0 and looks nothing up"),
        (None, 0, [], 20, "20 examples are too few"),
    ],
)
def test_report_is_refused_with_the_reason(
    bases: dict[int, Path], adapter: Adapter | None, base: int, faster: list[int], count: int, reason: str
) -> None:
    rng = np.random.default_rng(1)
    fitting = lora_adapter(rng, 2, head=two_labels(head(rng, 2)))
    others = [RetrainTarget(bases[k]) for k in faster]
    with pytest.raises(InvalidInput, match=reason):
        retrain(bases[base], adapter or fitting, sentences(count, 1), HOW, faster=others)


def test_base_is_refused_when_it_is_of_another_model(bases: dict[int, Path], tmp_path: Path) -> None:
    convert_pretrained(tiny_bert_folder(tmp_path / "bert", num_hidden_layers=3), tmp_path / "k1", k=1)
    rng = np.random.default_rng(1)
    adapter = lora_adapter(rng, 2, head=two_labels(head(rng, 2)))
    with pytest.raises(InvalidInput, match="is of another model: its layers is 3, not 4"):
        retrain(bases[0], adapter, sentences(100, 1), HOW, faster=[RetrainTarget(tmp_path / "k1")])
