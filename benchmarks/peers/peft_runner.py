"""PEFT: one tenant at a time with `set_adapter`, or all of a batch at once with `adapter_names`.

The adapters are loaded beforehand and brought to the model's dtype; PEFT by itself would keep them in float32, which is
slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import BertForSequenceClassification

from benchmarks.peers.full_model import Batchwise
from benchmarks.peers.plan import LABELS, Depth, Plan, adapter_folder, adapter_name, base_folder


@contextmanager
def start(plan: Plan, folder: Path, variant: str) -> Iterator[Batchwise]:
    """Variants: `per_tenant`, `mixed`, and `mixed_upper` with adapters on the layers above k only."""
    model = _load(plan, folder, Depth.UPPER if variant == "mixed_upper" else Depth.ALL)

    def one_at_a_time(ids: Tensor, mask: Tensor, tenants: tuple[int, ...]) -> Tensor:
        logits = ids.new_empty(len(ids), LABELS, dtype=torch.float32)
        for tenant in dict.fromkeys(tenants):
            rows = [row for row, owner in enumerate(tenants) if owner == tenant]
            model.set_adapter(adapter_name(tenant))
            logits[rows] = model(input_ids=ids[rows], attention_mask=mask[rows]).logits.float()
        return logits.softmax(-1)

    def mixed(ids: Tensor, mask: Tensor, tenants: tuple[int, ...]) -> Tensor:
        names = [adapter_name(tenant) for tenant in tenants]
        logits: Tensor = model(input_ids=ids, attention_mask=mask, adapter_names=names).logits
        return logits.float().softmax(-1)

    yield Batchwise(plan, one_at_a_time if variant == "per_tenant" else mixed)


def _load(plan: Plan, folder: Path, depth: Depth) -> PeftModel:
    dtype = getattr(torch, plan.dtype)
    base = BertForSequenceClassification.from_pretrained(base_folder(folder), dtype=dtype)
    model = PeftModel.from_pretrained(base, adapter_folder(folder, depth, 0), adapter_name=adapter_name(0))
    for tenant in range(1, plan.tenants):
        model.load_adapter(adapter_folder(folder, depth, tenant), adapter_name=adapter_name(tenant))
    return model.to(plan.device, dtype).eval()
