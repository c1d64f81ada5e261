"""TODO"""

from __future__ import annotations

from hmi.training.plan.config import TrainConfig, usual_rank
from hmi.training.plan.plan import TrainingPlan
from hmi.training.plan.recipe import begun_with, recipe_of

__all__ = ["TrainConfig", "TrainingPlan", "begun_with", "recipe_of", "usual_rank"]
