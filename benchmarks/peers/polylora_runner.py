"""PolyLoRA: its model around transformers' `BertModel`, one adapter id for each row.

It has no heads, so pooled tokens meet the rows' own classifiers here, in one batched product. Its Triton kernels run on
CUDA; on a CPU it takes its own plain path, which adds each row's LoRA in a loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from polylora import PolyLoraConfig, PolyLoraModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertModel

from benchmarks.peers.full_model import Batchwise
from benchmarks.peers.plan import LORA_RANK, TARGETS, Depth, Plan, adapter_folder, adapter_name, base_folder


@contextmanager
def start(plan: Plan, folder: Path, _variant: str) -> Iterator[Batchwise]:
    dtype = getattr(torch, plan.dtype)
    base = BertModel.from_pretrained(base_folder(folder), dtype=dtype)
    base = torch.nn.Module.to(base, plan.device)  # transformers' own signature hides this one
    config = PolyLoraConfig(max_gpu_adapters=plan.tenants, max_rank=LORA_RANK, target_modules=list(TARGETS))
    model = PolyLoraModel(base, config).eval()
    heads = []
    for tenant in range(plan.tenants):
        path = adapter_folder(folder, Depth.ALL, tenant)
        model.load_adapter_from_disk(adapter_name(tenant), str(path))
        heads.append(load_file(path / "adapter_model.safetensors"))
    weights = torch.stack([head["base_model.model.classifier.weight"] for head in heads]).to(plan.device, dtype)
    biases = torch.stack([head["base_model.model.classifier.bias"] for head in heads]).to(plan.device, dtype)

    def forward(ids: Tensor, mask: Tensor, tenants: tuple[int, ...]) -> Tensor:
        outputs = model(input_ids=ids, attention_mask=mask, adapter_ids=[adapter_name(tenant) for tenant in tenants])
        owners = torch.tensor(tenants, device=ids.device)
        pooled = outputs.pooler_output.unsqueeze(1)  # [rows, 1, H]
        logits = torch.baddbmm(biases[owners].unsqueeze(1), pooled, weights[owners].transpose(1, 2))
        return logits.squeeze(1).float().softmax(-1)

    yield Batchwise(plan, forward)
