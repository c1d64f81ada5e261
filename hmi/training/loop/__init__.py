"""The one training loop: `Trainer` runs optimizer steps for a loss function that is plugged in.

Adapters, deltas, distillation and estimators all train through it, so that the learning-rate schedule, the finite
check, gradient clipping, progress with a time estimate and checkpoints exist once. Start reading at `trainer.py`;
`EpochBatches` gives the batch of each step, `run_parallel` runs several small trainings on one CPU.
"""

from __future__ import annotations

from hmi.training.loop.checkpoint import Checkpoint, TrainState
from hmi.training.loop.parallel import run_parallel
from hmi.training.loop.trainer import EpochBatches, Trainer

__all__ = [
    "Checkpoint",
    "EpochBatches",
    "TrainState",
    "Trainer",
    "run_parallel",
]
