"""TODO"""

from __future__ import annotations

from hmi.training.adapter.evaluate import evaluate_adapter, labels_of, require_labels, task_of
from hmi.training.adapter.train import train_adapter

__all__ = ["evaluate_adapter", "labels_of", "require_labels", "task_of", "train_adapter"]
