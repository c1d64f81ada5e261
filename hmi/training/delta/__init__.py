"""TODO"""

from __future__ import annotations

from hmi.training.delta.config import DeltaConfig
from hmi.training.delta.train import train_delta

__all__ = ["DeltaConfig", "train_delta"]
