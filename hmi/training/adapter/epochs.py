"""Epochs over the training data, with an evaluation after each; the best epoch is kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from hmi.training.loop import Checkpoint, EpochBatches, Trainer, TrainState
from hmi.training.plan import TrainConfig
from hmi.training.reports import Metrics, OnProgress, TrainProgress
from hmi.training.tasks import Network, Objective, TaskData

DataT = TypeVar("DataT", bound=TaskData)


@dataclass(frozen=True, slots=True)
class EpochOutcome:
    """What a training did, see the fields of `TrainReport` with these names."""

    losses: tuple[float, ...]
    evaluations: tuple[Metrics, ...]
    best_epoch: int
    trained_tokens: int
    seconds: float
    resumed_at: int | None


class EpochLoop(Generic[DataT]):
    """One training of one network; `dev` chooses the best epoch, None keeps the last one."""

    def __init__(
        self,
        network: Network,
        objective: Objective[DataT],
        train: DataT,
        dev: DataT | None,
        config: TrainConfig,
        generator: torch.Generator,
        on_progress: OnProgress,
    ) -> None:
        self._network = network
        self._objective = objective
        self._train = train
        self._dev = dev
        self._config = config
        self._on_progress = on_progress
        self._batches = EpochBatches(train.lengths, config.batch_size, generator)
        self._tokens = train.tokens
        self._state = TrainState()
        self._loss_sum, self._examples = 0.0, 0  # of the epoch so far
        self._losses: list[float] = []  # of each whole epoch
        self._trained_tokens = 0

    def run(self, checkpoint: Checkpoint | None, started: float) -> EpochOutcome:
        """Train until the last epoch, or until `patience` epochs brought no better one.

        With a dev set the network has the weights of the best epoch afterwards. Raises what `Trainer.run` raises.
        """
        config = self._config
        weights = list(self._network.adapter.parameters())
        optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        steps = config.epochs * self._batches.steps_per_epoch
        trainer = Trainer(weights, optimizer, steps, self._report, checkpoint, started)
        resumed_at = trainer.resume()
        self._state = state = trainer.state
        for step, loss in enumerate(state.losses):
            self._count(step, loss)
        while not self._is_over():
            trainer.run(self._loss, until=(self._epochs_done() + 1) * self._batches.steps_per_epoch)
            if self._dev is not None:
                state.evaluations.append(self._objective.evaluate(self._network, self._dev))
                if state.best_epoch == len(state.evaluations):
                    state.best = [weight.detach().clone() for weight in weights]
            trainer.save()
        if state.best is not None:
            with torch.no_grad():
                for weight, best in zip(weights, state.best, strict=True):
                    weight.copy_(best)
        return EpochOutcome(
            losses=tuple(self._losses),
            evaluations=tuple(state.evaluations),
            best_epoch=state.best_epoch or len(self._losses),
            trained_tokens=self._trained_tokens,
            seconds=trainer.seconds(),
            resumed_at=resumed_at,
        )

    def _epochs_done(self) -> int:
        return len(self._losses) if self._dev is None else len(self._state.evaluations)

    def _is_over(self) -> bool:
        done, best = self._epochs_done(), self._state.best_epoch
        return done >= self._config.epochs or (best > 0 and done - best >= self._config.patience)

    def _loss(self, step: int) -> torch.Tensor:
        return self._objective.loss(self._network, self._train, self._batches.batch(step))

    def _count(self, step: int, loss: float) -> None:
        """Add a step to the sums of its epoch."""
        place = step % self._batches.steps_per_epoch
        chosen = self._batches.batch(step)
        if place == 0:
            self._loss_sum, self._examples = 0.0, 0
        self._loss_sum += loss * len(chosen)
        self._examples += len(chosen)
        self._trained_tokens += int(self._tokens[chosen].sum())
        if place + 1 == self._batches.steps_per_epoch:
            self._losses.append(self._loss_sum / self._examples)

    def _report(self, progress: TrainProgress) -> None:
        step = progress.done - 1
        self._count(step, progress.loss)
        evaluations = self._state.evaluations
        self._on_progress(
            dataclasses.replace(
                progress,
                epoch=1 + step // self._batches.steps_per_epoch,
                epochs=self._config.epochs,
                epoch_loss=self._loss_sum / self._examples,
                dev=evaluations[-1] if evaluations else None,
                trained_tokens=self._trained_tokens,
            )
        )
