"""TODO"""

from __future__ import annotations

from hmi.training.adapter.judge import judge_adapter, labels_of, require_labels, task_of
from hmi.training.adapter.train import TrainConfig, TrainProgress, train_adapter

__all__ = ["TrainConfig", "TrainProgress", "judge_adapter", "labels_of", "require_labels", "task_of", "train_adapter"]
