"""What the peers have in common: one forward for each batch, as their documentation shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.peers.plan import Batch, Plan


class Batchwise:
    """Runs batches one after another.

    Args:
        forward: Of ids int64 `[rows, tokens]`, a mask of ones and the rows' tenants: what is brought to the host.
    """

    def __init__(self, plan: Plan, forward: Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]) -> None:
        self._device = torch.device(plan.device)
        self._forward = forward

    @torch.inference_mode()
    def run(self, batches: Sequence[Batch]) -> NDArray[np.float32]:
        parts = []
        for batch in batches:
            ids = torch.from_numpy(batch.ids).to(self._device)
            answers = self._forward(ids, torch.ones_like(ids), batch.tenants)
            parts.append(answers.float().cpu().numpy())
        return np.concatenate(parts)

    def check(self) -> None:
        """Nothing is left to chance here: every batch is one forward of all layers."""
