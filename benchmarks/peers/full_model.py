"""The ceiling of full-model engines: transformers' `BertModel`, without tenants, which returns states.

`Batchwise` runs the other peers too: one forward for each batch, as their documentation shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BertModel

from benchmarks.peers.plan import Batch, Plan, base_folder

Forward = Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]
"""Takes ids int64 `[rows, tokens]`, a mask of ones and the rows' tenants."""


class Batchwise:
    """Runs batches one after another."""

    def __init__(self, plan: Plan, forward: Forward) -> None:
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
        """Every batch is one forward of all layers: nothing can differ."""


@contextmanager
def start(plan: Plan, folder: Path, _variant: str) -> Iterator[Batchwise]:
    model = BertModel.from_pretrained(base_folder(folder), dtype=getattr(torch, plan.dtype))
    model = torch.nn.Module.to(model, plan.device).train(mode=False)  # transformers' own signature hides this one

    def forward(ids: Tensor, mask: Tensor, _tenants: tuple[int, ...]) -> Tensor:
        pooled: Tensor = model(input_ids=ids, attention_mask=mask).pooler_output
        return pooled

    yield Batchwise(plan, forward)
