"""TODO"""

from __future__ import annotations

from hmi.training.plan.config import TrainConfig, default_rank
from hmi.training.plan.plan import TrainingPlan
from hmi.training.plan.recipe import config_from_start, config_like

__all__ = ["TrainConfig", "TrainingPlan", "config_from_start", "config_like", "default_rank"]
