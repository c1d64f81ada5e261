"""TODO"""

from __future__ import annotations

from hmi.training.loop.checkpoint import Checkpoint
from hmi.training.loop.parallel import side_by_side
from hmi.training.loop.parameters import LoraPairs, array_of, cast_pairs, drawn, lora_pairs, pair_arrays, zeros
from hmi.training.loop.schedule import LARGEST_GRADIENT, batches_of_like_length, share_of_peak
from hmi.training.loop.state import TrainState

__all__ = [
    "LARGEST_GRADIENT",
    "Checkpoint",
    "LoraPairs",
    "TrainState",
    "array_of",
    "batches_of_like_length",
    "cast_pairs",
    "drawn",
    "lora_pairs",
    "pair_arrays",
    "share_of_peak",
    "side_by_side",
    "zeros",
]
