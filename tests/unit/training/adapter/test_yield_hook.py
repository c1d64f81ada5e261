"""A training calls its yield hook after every small piece of work, and reports its progress."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmi.models.convert import convert_pretrained
from hmi.training.adapter import train_adapter
from hmi.training.data import Example
from hmi.training.lower import states
from hmi.training.plan import TrainConfig
from hmi.training.reports import TrainProgress
from hmi.training.tasks import network
from tests.tiny import tiny_bert_folder

EXAMPLES = [Example(f"w{number % 2} w{number}", ("no", "yes")[number % 2]) for number in range(40)]
JUDGES = [Example(f"w{number % 2} w{number} w{number}", ("no", "yes")[number % 2]) for number in range(12)]
QUICK = TrainConfig(rank=2, epochs=2, batch_size=8, dtype="float32")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    convert_pretrained(tiny_bert_folder(tmp_path / "source"), tmp_path / "base", k=2)
    return tmp_path / "base"


def test_yield_hook_is_called_before_and_between_steps(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_CHUNK", 16)  # windows
    monkeypatch.setattr(network, "_EVALUATION_BATCH", 4)
    said: list[str] = []
    train_adapter(
        base,
        EXAMPLES,
        QUICK,
        JUDGES,
        on_progress=lambda progress: said.append("step"),
        yield_hook=lambda: said.append("."),
    )
    before, *after = "".join(said).replace("step", "s").split("sssss")
    assert len(before) > 2  # both parts' windows
    assert after == ["...", "..."]  # twelve texts, four at a time, after each epoch


def test_training_ends_when_the_yield_hook_raises(base: Path) -> None:
    def refuse() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train_adapter(base, EXAMPLES, QUICK, yield_hook=refuse)


def test_epoch_loss_at_the_last_step_is_that_of_the_epoch(base: Path) -> None:
    heard: list[TrainProgress] = []
    trained = train_adapter(base, EXAMPLES, QUICK, JUDGES[:4], on_progress=heard.append)
    ends = [progress.epoch_loss for progress in heard if progress.done % 5 == 0]
    assert ends == pytest.approx(trained.report.losses)
