"""The batch of each step: epochs over all sequences, in batches of similar length."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray


class EpochBatches:
    """Which sequences each step trains on: every sequence once an epoch, batches in random order.

    Args:
        lengths: Tokens of each sequence, int64 `[n]`.
        generator: Two generators in the same state give the same batches; it is used here alone from now on.
    """

    def __init__(self, lengths: NDArray[np.int64], size: int, generator: torch.Generator) -> None:
        self.steps_per_epoch = math.ceil(len(lengths) / size)
        self._lengths = lengths
        self._size = size
        self._generator = generator
        self._epoch = -1
        self._batches: list[list[int]] = []

    def batch(self, step: int) -> list[int]:
        """Places of the sequences of a step from 0, of the last epoch that was asked for or a later one."""
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
