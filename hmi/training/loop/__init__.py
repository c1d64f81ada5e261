"""TODO"""

from __future__ import annotations

from hmi.training.loop.checkpoint import Checkpoint
from hmi.training.loop.parallel import run_parallel
from hmi.training.loop.parameters import (
    LoraPairs,
    array_of,
    cast_pairs,
    lora_pairs,
    pair_arrays,
    random_parameter,
    zero_parameter,
)
from hmi.training.loop.schedule import MAX_GRADIENT_NORM, batches_by_length, learning_rate_factor
from hmi.training.loop.state import TrainState

__all__ = [
    "MAX_GRADIENT_NORM",
    "Checkpoint",
    "LoraPairs",
    "TrainState",
    "array_of",
    "batches_by_length",
    "cast_pairs",
    "learning_rate_factor",
    "lora_pairs",
    "pair_arrays",
    "random_parameter",
    "run_parallel",
    "zero_parameter",
]
