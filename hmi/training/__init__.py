"""Training: adapters from labelled text, bases distilled from pretrained models, domain deltas, imported adapters.

Start reading at the entry points `adapter.train_adapter`, `distill.build_base`, `delta.train_delta` and
`imports.retrain`. All of them run `loop.Trainer` with a loss of their own. `data`, `plan` and `reports` are plain data
for every process and need no torch; `lower`, `trainable` and `tasks` are the parts that trainings are built from.
Import from the modules and packages: this one loads none of them.
"""

from __future__ import annotations

__all__ = ["adapter", "data", "delta", "distill", "imports", "loop", "lower", "plan", "reports", "tasks", "trainable"]
