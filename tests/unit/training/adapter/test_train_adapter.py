"""Training on a tiny model: it learns, it is repeatable, and its report describes the exported adapter."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from hmi.adapters import Adapter, AdapterKind, Pooling
from hmi.adapters.maths import SingleAdapter
from hmi.errors import InvalidInput
from hmi.models.families import load_hbert, load_tokenizer
from hmi.spec import MissPolicy, Placement, read_spec
from hmi.training.adapter import train_adapter
from hmi.training.data import Example
from hmi.training.lower import LowerStates, encode
from hmi.training.plan import TrainConfig
from tests.sentences import sentences
from tests.tiny import tiny_base

QUICK = TrainConfig(rank=4, epochs=12, batch_size=8, learning_rate=1e-2, dtype="float32")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"), k=2)


def same_weights(one: Adapter, other: Adapter) -> bool:
    ours, theirs = one.tensors(), other.tensors()
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", [AdapterKind.LORA, AdapterKind.BOTTLENECK])
def test_adapter_learns_when_a_word_decides_the_label(base: Path, kind: AdapterKind) -> None:
    trained = train_adapter(base, sentences(160, 1), dataclasses.replace(QUICK, kind=kind), sentences(64, 2))
    report = trained.report
    assert trained.adapter.kind is kind
    assert report.losses[-1] < 0.5 * report.losses[0]
    assert report.dev is not None
    assert report.dev.values["accuracy"] > 0.8 > (report.baseline or 1) == 0.5


@pytest.mark.parametrize("kind", list(AdapterKind))
@pytest.mark.parametrize("pooling", [Pooling.CLS, Pooling.MEAN])
def test_report_is_of_the_exported_adapter_when_it_is_run_alone(
    base: Path, kind: AdapterKind, pooling: Pooling
) -> None:
    dev = sentences(40, 3)
    config = dataclasses.replace(QUICK, kind=kind, pooling=pooling, epochs=1)
    trained = train_adapter(base, sentences(32, 1), config, dev)
    head = trained.adapter.head
    assert head is not None
    model = load_hbert(base)
    states = LowerStates(model, encode(load_tokenizer(base), [each.text for each in dev], 48))
    hidden, mask = states.batch(range(len(dev)))
    with torch.no_grad():
        upper = model.upper(hidden, mask, SingleAdapter.of(trained.adapter)).numpy()
    weights = mask.numpy()[:, :, None]
    pooled = upper[:, 0] if head.pooling is Pooling.CLS else (upper * weights).sum(1) / weights.sum(1)
    answered = [head.labels[best] for best in (pooled @ head.out.T + head.out_bias).argmax(1)]
    right = sum(label == each.label for label, each in zip(answered, dev, strict=True))
    assert trained.report.dev is not None
    assert trained.report.dev.score == right / len(dev)


def test_dev_texts_are_not_trained_on(base: Path) -> None:
    config = dataclasses.replace(QUICK, epochs=1)
    examples, dev = sentences(40, 1), sentences(20, 2)
    report = train_adapter(base, [*examples, *dev[:5]], config, dev).report
    apart = train_adapter(base, examples, config, dev).report
    left_out = 5 + sum(each.text in {judge.text for judge in dev} for each in examples)
    assert (report.left_out, report.examples, report.dev_examples) == (left_out, 45 - left_out, 20)
    assert report.dev == apart.dev
    with pytest.raises(InvalidInput, match="nothing to learn from"):
        train_adapter(base, dev, config, dev)


def test_weights_are_the_same_with_the_same_seed(base: Path) -> None:
    config = dataclasses.replace(QUICK, epochs=1)
    first, second = (train_adapter(base, sentences(24, 1), config).adapter for _ in range(2))
    other = train_adapter(base, sentences(24, 1), dataclasses.replace(config, seed=1)).adapter
    assert same_weights(first, second)
    assert not same_weights(first, other)


def test_only_upper_layers_are_trained_when_lower_ones_are_looked_up(base: Path) -> None:
    before = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    sites, places = read_spec(base).sites, tuple(Placement)
    for kind, expected in ((AdapterKind.LORA, 2 * len(sites)), (AdapterKind.BOTTLENECK, 2 * len(places))):
        config = dataclasses.replace(QUICK, kind=kind, epochs=1, sites=sites, placements=places)
        adapter = train_adapter(base, sentences(16, 1), config).adapter
        adapter.validate(read_spec(base))
        assert len(adapter.lora) + len(adapter.bottleneck) == expected
    assert hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest() == before


def test_three_labels_are_learnt_when_the_text_has_three(base: Path) -> None:
    examples = [Example(f"w{number % 3} w{30 + number}", "abc"[number % 3]) for number in range(45)]
    dev = [Example(f"{each.text} w90", each.label) for each in examples]
    trained = train_adapter(base, examples, QUICK, dev)
    assert trained.report.labels == ("a", "b", "c")
    assert trained.report.dev is not None
    assert trained.report.dev.score > 0.9


def test_bfloat16_gives_float32_weights_when_the_base_runs_in_it(base: Path) -> None:
    config = dataclasses.replace(QUICK, dtype="bfloat16", epochs=1)
    adapter = train_adapter(base, sentences(16, 1), config).adapter
    assert {tensor.dtype for tensor in adapter.tensors().values()} == {np.dtype(np.float32)}


def test_dev_set_is_refused_when_it_has_an_unknown_label(base: Path) -> None:
    with pytest.raises(InvalidInput, match="'maybe'"):
        train_adapter(base, sentences(8, 1), QUICK, [Example("w1", "maybe")])


@pytest.mark.parametrize("field", ["rank", "epochs", "batch_size", "max_tokens"])
def test_config_is_refused_when_a_count_is_zero(field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        TrainConfig(**{field: 0})  # type: ignore[arg-type]


def test_adapters_begin_at_the_lowest_layer(base: Path) -> None:
    spec = read_spec(base)
    config = dataclasses.replace(QUICK, epochs=1, lowest_layer=spec.layers - 1)
    adapter = train_adapter(base, sentences(40, 1), config).adapter
    assert {layer for layer, _ in [*adapter.bottleneck, *adapter.lora]} == {spec.layers - 1}
    with pytest.raises(InvalidInput, match="lowest_layer"):
        train_adapter(base, sentences(40, 1), dataclasses.replace(config, lowest_layer=spec.layers))


def test_training_gets_backoff_data_under_the_miss_policy_backoff(base: Path) -> None:
    exact = train_adapter(base, sentences(40, 1), dataclasses.replace(QUICK, epochs=1))
    backoff = train_adapter(
        base, sentences(40, 1), dataclasses.replace(QUICK, epochs=1, miss_policy=MissPolicy.BACKOFF)
    )
    assert not same_weights(exact.adapter, backoff.adapter)
    assert backoff.report.losses != exact.report.losses
