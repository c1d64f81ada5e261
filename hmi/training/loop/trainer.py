"""The training loop that every training uses: the loss is plugged in, everything around it is here."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from hmi.errors import InvalidInput
from hmi.training.loop.checkpoint import Checkpoint, TrainState
from hmi.training.reports import OnProgress, TrainProgress

_MAX_GRADIENT_NORM = 1.0  # over all parameters
_WARM_UP = 0.1  # of all steps, before the learning rate falls linearly to zero


class EpochBatches:
    """The sequences that each step trains on: all once an epoch, batches of similar length in random order.

    The `generator` must not be used elsewhere afterwards.
    """

    def __init__(self, lengths: NDArray[np.int64], size: int, generator: torch.Generator) -> None:
        self.steps_per_epoch = math.ceil(len(lengths) / size)
        self._lengths = lengths
        self._size = size
        self._generator = generator
        self._epoch = -1
        self._batches: list[list[int]] = []

    def batch(self, step: int) -> list[int]:
        """Places of the sequences of a step from 0; never of an epoch before that of the last call."""
        epoch, place = divmod(step, self.steps_per_epoch)
        while self._epoch < epoch:
            self._batches = self._draw_epoch()
            self._epoch += 1
        return self._batches[place]

    def _draw_epoch(self) -> list[list[int]]:
        # A little noise on the lengths mixes neighbours, so that batches differ from epoch to epoch.
        noise = torch.rand(len(self._lengths), generator=self._generator).numpy() * 4  # tokens
        order = np.argsort(self._lengths + noise, kind="stable")
        starts = torch.randperm(self.steps_per_epoch, generator=self._generator) * self._size
        return [order[start : start + self._size].tolist() for start in starts.tolist()]


class Trainer:
    """Runs up to `steps` optimizer steps over `weights`.

    A resumed training ends with the same weights, to the bit, as an uninterrupted one, if the loss of a step depends on
    the weights and the step number alone.

    Args:
        optimizer: Over the same weights; its initial learning rate is the peak of the schedule.
        started: On `time.monotonic`'s clock; the run time in `TrainState.seconds` counts from here.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        optimizer: torch.optim.Optimizer,
        steps: int,
        on_progress: OnProgress,
        checkpoint: Checkpoint | None = None,
        started: float | None = None,
    ) -> None:
        self.state = TrainState()
        self._weights = weights
        self._optimizer = optimizer
        self._peak: float = optimizer.defaults["lr"]
        self._steps = steps
        self._on_progress = on_progress
        self._checkpoint = checkpoint
        self._started = time.monotonic() if started is None else started
        self._earlier_seconds = 0.0

    def resume(self) -> int | None:
        """Continue from the checkpoint. Returns the number of steps done, or None if there is nothing to resume."""
        found = self._checkpoint.load(self._weights, self._optimizer) if self._checkpoint else None
        if found is None:
            return None
        self.state, self._earlier_seconds = found, found.seconds
        return found.done

    def run(self, loss_of: Callable[[int], Tensor], until: int | None = None) -> int:
        """Run the steps, from 0, up to `until`, by default all of them. Returns how many were run.

        Raises `InvalidInput` if a loss is not finite, and what `on_progress` raises.
        """
        last = self._steps if until is None else until
        first, clock = self.state.done, time.monotonic()
        for step in range(first, last):
            loss = self._update(step, loss_of(step))
            self.state.losses.append(loss)
            seconds_left = (time.monotonic() - clock) / (step + 1 - first) * (self._steps - step - 1)
            try:
                self._on_progress(TrainProgress(step + 1, self._steps, loss, seconds_left))
            except BaseException:
                # The training may be resumed later. A full disk must not hide the reason why it ended.
                with contextlib.suppress(OSError, SafetensorError):
                    self.save()
                raise
            if self._checkpoint is not None and self._checkpoint.is_due():
                self.save()
        return max(0, last - first)

    def _update(self, step: int, loss: Tensor) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):  # before it reaches the weights and the checkpoint
            message = f"the loss of step {step + 1} is not finite; take a lower learning rate"
            raise InvalidInput(message, param="learning_rate")
        for group in self._optimizer.param_groups:
            group["lr"] = self._peak * _learning_rate_factor(step, self._steps)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._weights, _MAX_GRADIENT_NORM)
        self._optimizer.step()
        return value

    def seconds(self) -> float:
        """Run time so far, earlier runs included."""
        return self._earlier_seconds + time.monotonic() - self._started

    def save(self) -> None:
        """Write the checkpoint, if there is one. Raises `OSError`."""
        self.state.seconds = self.seconds()
        if self._checkpoint is not None:
            self._checkpoint.save(self.state, self._weights, self._optimizer)


def _learning_rate_factor(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step from 0: a linear warm-up, then linear decay to zero."""
    rising = (step + 1) / max(1.0, _WARM_UP * steps)
    return min(1.0, rising) * (1 - step / steps)
