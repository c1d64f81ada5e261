"""What every training here has alike: its order of batches, its learning rate, its largest step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["MAX_GRADIENT_NORM", "batches_by_length", "learning_rate_factor"]

MAX_GRADIENT_NORM = 1.0
"""Norm over all parameters."""

_WARM_UP = 0.1  # of all steps, before the learning rate falls linearly to zero


def learning_rate_factor(step: int, steps: int) -> float:
    """The learning rate at a step from 0, over its highest."""
    rising = (step + 1) / max(1.0, _WARM_UP * steps)
    return min(1.0, rising) * (1 - step / steps)


def batches_by_length(lengths: NDArray[np.int64], size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """All sequences once, those of like length together, batches in random order.

    A little noise on the lengths mixes neighbours, so that an epoch's batches are not the last one's.
    """
    noise = torch.rand(len(lengths), generator=generator).numpy() * 4  # tokens
    order = np.argsort(lengths + noise, kind="stable")
    starts = torch.randperm(math.ceil(len(order) / size), generator=generator) * size
    for start in starts.tolist():
        yield order[start : start + size].tolist()
