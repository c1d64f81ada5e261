"""TODO"""

from __future__ import annotations

from worker.tuning import run
from worker.tuning.dispatch import dispatch_trainings
from worker.tuning.process import TrainingProcess
from worker.tuning.reconcile import put_back_trainings, sweep_trainings
from worker.tuning.wire import Order, Step

__all__ = ["Order", "Step", "TrainingProcess", "dispatch_trainings", "put_back_trainings", "run", "sweep_trainings"]
