"""The loop of training: epochs of batches, judgement after each, the best epoch kept."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterator
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from hmi.errors import InvalidInput
from hmi.training.loop import MAX_GRADIENT_NORM, Checkpoint, TrainState, batches_by_length, learning_rate_factor
from hmi.training.plan import TrainConfig
from hmi.training.reports import OnProgress, TrainProgress
from hmi.training.tasks import Network, Objective, TaskData

__all__ = ["Loop"]

PartT = TypeVar("PartT", bound=TaskData)


class Loop:
    """One training of one network.

    Args:
        started: On `time.monotonic`'s clock, when the training was asked for.
        generator: Decides the order of batches.
    """

    def __init__(
        self,
        network: Network,
        config: TrainConfig,
        generator: torch.Generator,
        on_progress: OnProgress,
        checkpoint: Checkpoint | None,
        started: float,
    ) -> None:
        self._network = network
        self._config = config
        self._generator = generator
        self._on_progress = on_progress
        self._checkpoint = checkpoint
        self._started = started
        self._weights: list[Tensor] = list(network.adapter.parameters())
        self._optimizer = torch.optim.AdamW(
            self._weights, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._course = TrainState(generator.get_state())
        self._earlier = 0.0  # seconds
        self.resumed_at: int | None = None

    def run(self, objective: Objective[PartT], learnt: PartT, judging: PartT | None) -> TrainState:
        """Train until the last epoch, or until `patience` epochs brought nothing; the network then has the best epoch's
        weights, where somebody judged.

        Raises what `on_progress` raises, with the checkpoint written, and `InvalidInput` where the loss is no number.
        """
        config, course = self._config, self._take_over()
        while not course.is_over(config.epochs, config.patience):
            self._train_epoch(objective, learnt)
            course.losses.append(course.loss_sum / len(learnt.lengths))
            if judging is not None and course.take_judgement(objective.judge(self._network, judging)):
                course.best = [weight.detach().clone() for weight in self._weights]
            course.order, course.in_epoch, course.loss_sum = self._generator.get_state(), 0, 0.0
            self._save()
        course.seconds = self._seconds()
        if course.best is not None:
            with torch.no_grad():
                for weight, best in zip(self._weights, course.best, strict=True):
                    weight.copy_(best)
        return course

    def _take_over(self) -> TrainState:
        found = self._checkpoint.load(self._weights, self._optimizer) if self._checkpoint else None
        if found is not None:
            self._course = found
            self._generator.set_state(found.order)
            self._earlier = found.seconds
            self.resumed_at = found.done
        return self._course

    def _train_epoch(self, objective: Objective[PartT], learnt: PartT) -> None:
        """What is left of the epoch under way."""
        config, course = self._config, self._course
        in_epoch = math.ceil(len(learnt.lengths) / config.batch_size)
        steps = config.epochs * in_epoch
        first, clock = course.done, time.monotonic()
        for chosen in self._batches(learnt):
            loss = objective.loss(self._network, learnt, chosen)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise InvalidInput(
                    "the loss is no finite number any more; try a lower learning rate", param="learning_rate"
                )
            for group in self._optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_factor(course.done, steps)
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self._weights, MAX_GRADIENT_NORM)
            self._optimizer.step()
            course.done += 1
            course.in_epoch += 1
            course.loss_sum += value * len(chosen)
            course.trained_tokens += int(learnt.tokens[chosen].sum())
            left = (time.monotonic() - clock) / (course.done - first) * (steps - course.done)
            so_far = min(course.in_epoch * config.batch_size, len(learnt.lengths))  # the last batch may be any one
            self._tell(value, course.loss_sum / so_far, steps, left)
            if self._checkpoint is not None and self._checkpoint.is_due():
                self._save()

    def _tell(self, loss: float, epoch_loss: float, steps: int, seconds_left: float) -> None:
        course = self._course
        progress = TrainProgress(
            done=course.done,
            steps=steps,
            epoch=course.epochs + 1,
            epochs=self._config.epochs,
            loss=loss,
            epoch_loss=epoch_loss,
            dev=course.judged[-1] if course.judged else None,
            trained_tokens=course.trained_tokens,
            seconds_left=seconds_left,
        )
        try:
            self._on_progress(progress)
        except BaseException:
            # Whoever ends it may want it to go on later; a full disk must not hide why it ended.
            with contextlib.suppress(OSError, SafetensorError):
                self._save()
            raise

    def _batches(self, learnt: TaskData) -> Iterator[list[int]]:
        """Of the epoch under way, without those that are done."""
        batches = batches_by_length(learnt.lengths, self._config.batch_size, self._generator)
        return itertools.islice(batches, self._course.in_epoch, None)

    def _save(self) -> None:
        if self._checkpoint is not None:
            self._course.seconds = self._seconds()
            self._checkpoint.save(self._course, self._weights, self._optimizer)

    def _seconds(self) -> float:
        return self._earlier + time.monotonic() - self._started
