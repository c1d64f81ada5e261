"""Adapters and deltas as torch parameters: float32 master weights that run in the model's dtype.

`TrainableAdapter` sits on the upper layers and has a head, `TrainableDelta` sits on the lower layers. Both start as the
base model or as an existing adapter, give `maths` to a forward, and `export` a plain `Adapter`.
"""

from __future__ import annotations

from hmi.training.trainable.adapter import TrainableAdapter
from hmi.training.trainable.delta import TrainableDelta

__all__ = ["TrainableAdapter", "TrainableDelta"]
