"""The ceiling of full-model engines: transformers' `BertModel`, without tenants, which returns states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertModel

from benchmarks.peers.batchwise import Batchwise
from benchmarks.peers.places import base_folder
from benchmarks.peers.plan import Plan


@contextmanager
def start(plan: Plan, folder: Path, _variant: str) -> Iterator[Batchwise]:
    model = BertModel.from_pretrained(base_folder(folder), dtype=getattr(torch, plan.dtype))
    model = torch.nn.Module.to(model, plan.device).train(mode=False)  # transformers' own signature hides this one

    def forward(ids: Tensor, mask: Tensor, _tenants: tuple[int, ...]) -> Tensor:
        pooled: Tensor = model(input_ids=ids, attention_mask=mask).pooler_output
        return pooled

    yield Batchwise(plan, forward)
