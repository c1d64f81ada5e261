"""A resumed training ends with the same weights, to the bit, as an uninterrupted one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from hmi.adapters import AdapterKind
from hmi.errors import Cancelled
from hmi.training.adapter import train as task
from hmi.training.adapter import train_adapter
from hmi.training.data import AnyExample, PairExample, Span, TaggedExample
from hmi.training.plan import TrainConfig
from hmi.training.reports import TrainProgress
from tests.sentences import sentences
from tests.tiny import tiny_base
from tests.unit.training.adapter.test_train_adapter import same_weights

CONFIG = TrainConfig(rank=4, epochs=3, batch_size=8, learning_rate=1e-2, patience=3, dtype="float32")
STEPS_OF_AN_EPOCH = 6


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"), k=2)


class Stop:
    """Ends a training after so many steps, and keeps what it reported."""

    def __init__(self, after: int) -> None:
        self._after = after
        self.reported: list[TrainProgress] = []

    def __call__(self, progress: TrainProgress) -> None:
        self.reported.append(progress)
        if progress.done == self._after:
            raise Cancelled("enough")


def of_every_task(task: str) -> list[AnyExample]:
    plain = sentences(48, 1)
    if task == "tokens":
        return [TaggedExample(each.text, (Span(0, 2, each.label),), entities=True) for each in plain]
    if task == "embedding":
        return [PairExample(each.text, f"{each.text} w5") for each in plain]
    return list(plain)


@pytest.mark.parametrize("kind", [AdapterKind.LORA, AdapterKind.BOTTLENECK])
@pytest.mark.parametrize("after", [1, STEPS_OF_AN_EPOCH, STEPS_OF_AN_EPOCH + 3])
def test_weights_are_the_same_to_the_bit_when_training_was_stopped(
    base: Path, tmp_path: Path, kind: AdapterKind, after: int
) -> None:
    config = dataclasses.replace(CONFIG, kind=kind)
    examples, dev = sentences(48, 1), sentences(24, 2)
    whole = train_adapter(base, examples, config, dev)
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Cancelled):
        train_adapter(base, examples, config, dev, on_progress=Stop(after), checkpoint=checkpoint)
    again = Stop(after=-1)
    resumed = train_adapter(base, examples, config, dev, on_progress=again, checkpoint=checkpoint)
    assert resumed.report.resumed_at == after
    assert [progress.done for progress in again.reported] == list(range(after + 1, 3 * STEPS_OF_AN_EPOCH + 1))
    assert same_weights(resumed.adapter, whole.adapter)
    differing = {"seconds", "resumed_at", "seconds_per_thousand_examples"}
    ours, theirs = resumed.report.to_json(), whole.report.to_json()
    assert {name for name in ours if ours[name] != theirs[name]} <= differing
    assert list(tmp_path.iterdir()) == [checkpoint]


@pytest.mark.parametrize("task", ["tokens", "embedding"])
def test_every_task_resumes_when_it_was_stopped(base: Path, tmp_path: Path, task: str) -> None:
    examples = of_every_task(task)
    whole = train_adapter(base, examples, CONFIG)
    with pytest.raises(Cancelled):
        train_adapter(base, examples, CONFIG, on_progress=Stop(8), checkpoint=tmp_path / "checkpoint")
    resumed = train_adapter(base, examples, CONFIG, checkpoint=tmp_path / "checkpoint")
    assert resumed.report.resumed_at == 8
    assert same_weights(resumed.adapter, whole.adapter)


def test_finished_training_is_not_repeated(base: Path, tmp_path: Path) -> None:
    first = train_adapter(base, sentences(48, 1), CONFIG, sentences(24, 2), checkpoint=tmp_path / "checkpoint")
    reported = Stop(after=-1)
    again = train_adapter(
        base, sentences(48, 1), CONFIG, sentences(24, 2), on_progress=reported, checkpoint=tmp_path / "checkpoint"
    )
    assert reported.reported == []
    assert same_weights(first.adapter, again.adapter)
    assert again.report.dev == first.report.dev


@pytest.mark.parametrize("change", ["seed", "text", "dev", "machine"])
def test_checkpoint_is_ignored_when_it_belongs_to_another_training(
    base: Path, tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, dev, config = sentences(48, 1), sentences(24, 2), dataclasses.replace(CONFIG, dtype="auto")
    monkeypatch.setattr(task, "resolve_dtype", lambda name, device: torch.float32)
    with pytest.raises(Cancelled):
        train_adapter(base, examples, config, dev, on_progress=Stop(4), checkpoint=tmp_path / "checkpoint")
    match change:
        case "seed":
            config = dataclasses.replace(config, seed=1)
        case "text":
            examples = [*examples[1:], examples[0]]
        case "machine":  # that multiplies bfloat16
            monkeypatch.setattr(task, "resolve_dtype", lambda name, device: torch.bfloat16)
        case _:
            dev = dev[1:]
    found = train_adapter(base, examples, config, dev, checkpoint=tmp_path / "checkpoint")
    assert found.report.resumed_at is None
    assert "belongs to another text, configuration or base" in caplog.text
    assert same_weights(found.adapter, train_adapter(base, examples, config, dev).adapter)


def test_training_starts_over_when_its_checkpoint_is_damaged(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Cancelled):
        train_adapter(base, sentences(48, 1), CONFIG, on_progress=Stop(4), checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    found = train_adapter(base, sentences(48, 1), CONFIG, checkpoint=checkpoint)
    assert found.report.resumed_at is None
    assert "cannot be read" in caplog.text


def test_progress_is_reported_after_every_step(base: Path) -> None:
    stop = Stop(after=-1)
    report = train_adapter(base, sentences(44, 1), CONFIG, sentences(24, 2), on_progress=stop).report
    assert [each.done for each in stop.reported] == list(range(1, 19))
    assert {each.steps for each in stop.reported} == {18}
    assert [each.epoch for each in stop.reported] == [1] * 6 + [2] * 6 + [3] * 6
    assert [each.dev.score if each.dev else None for each in stop.reported[::6]] == [None, *report.dev_scores[:2]]
    assert stop.reported[-1].trained_tokens == report.trained_tokens == 3 * report.tokens
    assert stop.reported[-1].seconds_left == 0


def test_reason_reaches_the_caller_when_the_checkpoint_cannot_be_kept(base: Path, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        train_adapter(
            base, sentences(48, 1), CONFIG, on_progress=Stop(2), checkpoint=tmp_path / "no" / "such" / "place"
        )
