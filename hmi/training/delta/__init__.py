"""Training a domain delta: a LoRA on the lower layers, distilled from a full model on the domain's text.

`train_delta` is the entry point; `DeltaConfig` and `DeltaReport` are its input and outcome.
"""

from __future__ import annotations

from hmi.training.delta.config import DeltaConfig, TrainedDelta
from hmi.training.delta.train import train_delta

__all__ = ["DeltaConfig", "TrainedDelta", "train_delta"]
