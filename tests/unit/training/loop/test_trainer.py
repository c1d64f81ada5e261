"""The training loop: schedule, finite check, checkpoints, and batches that depend on the step alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hmi.errors import Cancelled, InvalidInput
from hmi.training.loop import Checkpoint, EpochBatches, Trainer
from hmi.training.reports import OnProgress, TrainProgress

STEPS = 20


def ignore(progress: TrainProgress) -> None:
    pass


def make(on_progress: OnProgress = ignore, checkpoint: Checkpoint | None = None) -> tuple[Trainer, Tensor]:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    return Trainer([weight], optimizer, STEPS, on_progress, checkpoint), weight


def loss_of(weight: Tensor, step: int) -> Tensor:
    return ((weight - step) ** 2).mean()


def test_resumed_training_has_the_same_weights(tmp_path: Path) -> None:
    def stop(progress: TrainProgress) -> None:
        if progress.done == 7:
            raise Cancelled("enough")

    whole, expected = make()
    assert whole.run(lambda step: loss_of(expected, step)) == STEPS
    first, weight = make(stop, Checkpoint(tmp_path / "checkpoint", "one"))
    with pytest.raises(Cancelled):
        first.run(lambda step: loss_of(weight, step))
    second, resumed = make(checkpoint=Checkpoint(tmp_path / "checkpoint", "one"))
    assert second.resume() == 7
    assert second.run(lambda step: loss_of(resumed, step)) == STEPS - 7
    assert torch.equal(resumed, expected)
    assert second.state.losses == whole.state.losses
    assert second.state.seconds >= first.state.seconds > 0


def test_checkpoint_of_another_identity_is_ignored(tmp_path: Path) -> None:
    trainer, weight = make(checkpoint=Checkpoint(tmp_path / "checkpoint", "one"))
    trainer.run(lambda step: loss_of(weight, step))
    trainer.save()
    other, untouched = make(checkpoint=Checkpoint(tmp_path / "checkpoint", "another"))
    assert other.resume() is None
    assert torch.equal(untouched, torch.ones(3))


def test_loss_that_is_not_finite_is_refused_before_it_reaches_the_weights() -> None:
    trainer, weight = make()
    with pytest.raises(InvalidInput, match="the loss of step 1 is not finite; take a lower learning rate") as caught:
        trainer.run(lambda step: weight.sum() * torch.inf)
    assert caught.value.param == "learning_rate"
    assert torch.equal(weight, torch.ones(3))


def test_learning_rate_rises_and_falls_to_zero() -> None:
    trainer, weight = make()
    rates = []

    def loss(step: int) -> Tensor:
        rates.append(trainer._optimizer.param_groups[0]["lr"])
        return loss_of(weight, step)

    trainer.run(loss)
    assert rates[1:4] == pytest.approx([0.05, 0.095, 0.09])  # of the step before; a tenth of the steps is warm-up
    assert trainer._optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / STEPS)


def test_every_epoch_has_every_sequence_once_in_batches_of_similar_length() -> None:
    lengths = np.array([3, 40, 4, 41, 20, 21, 5], np.int64)
    batches = EpochBatches(lengths, 2, torch.Generator().manual_seed(1))
    again = EpochBatches(lengths, 2, torch.Generator().manual_seed(1))
    assert batches.steps_per_epoch == 4
    for epoch in range(3):
        drawn = [batches.batch(4 * epoch + place) for place in range(4)]
        assert sorted(itertools.chain(*drawn)) == list(range(7))
        assert all(np.ptp(lengths[batch]) < 20 for batch in drawn)
    assert again.batch(11) == batches.batch(11)  # earlier epochs are drawn, and skipped
