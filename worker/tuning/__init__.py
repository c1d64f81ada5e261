"""Fine-tuning jobs: each is trained in a process of its own beside serving, and its adapter becomes a tenant's model.

Start with `TrainingRunner`, the `worker.job_runner.JobRunner` of these jobs. `inputs` fetches the files, `process`
starts `trainer` and exchanges the messages of `protocol` with it, `monitor` paces it and records its progress.
"""

from __future__ import annotations

from worker.tuning.process import TrainingProcess
from worker.tuning.protocol import Order, Step
from worker.tuning.runner import TrainingRunner

__all__ = ["Order", "Step", "TrainingProcess", "TrainingRunner"]
