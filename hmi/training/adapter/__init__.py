"""Training a tenant's adapter and head from labelled text, and evaluating an existing adapter.

`train_adapter` is the entry point: it prepares the data, runs `EpochLoop`, which evaluates after every epoch and keeps
the best one, and returns the adapter with a report. `evaluate_adapter` answers how well any adapter does on examples.
"""

from __future__ import annotations

from hmi.training.adapter.evaluate import evaluate_adapter, labels_of, require_labels, task_of
from hmi.training.adapter.train import train_adapter

__all__ = ["evaluate_adapter", "labels_of", "require_labels", "task_of", "train_adapter"]
