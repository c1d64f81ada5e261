"""The parameters of a training: plain data without torch, so that the API can check a request for one.

`TrainConfig` has every hyperparameter of an adapter's training, `TrainingPlan` is a fine-tuning job as the catalog
keeps it, and `config_like` and `config_from_start` derive a config from an existing adapter.
"""

from __future__ import annotations

from hmi.training.plan.config import TrainConfig, TrainingPlan, default_rank, require_numbers
from hmi.training.plan.recipe import config_from_start, config_like

__all__ = ["TrainConfig", "TrainingPlan", "config_from_start", "config_like", "default_rank", "require_numbers"]
