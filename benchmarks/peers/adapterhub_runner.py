"""AdapterHub's `adapters`: a batch sorted by tenant and split among their LoRAs and heads with `BatchSplit`.

The library needs an older transformers than the project; its folder comes first on this process's path. Under
`BatchSplit` a head on the model's pooler is given all rows, not its own, so these heads have a copy of the pooler each:
the library's ordinary kind of head, and the same function.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from adapters import BertAdapterModel, LoRAConfig
from adapters.composition import BatchSplit
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.peers.full_model import Batchwise
from benchmarks.peers.plan import (
    LABELS,
    LORA_ALPHA,
    LORA_RANK,
    TARGETS,
    Depth,
    Plan,
    adapter_folder,
    adapter_name,
    base_folder,
)


@contextmanager
def start(plan: Plan, folder: Path, _variant: str) -> Iterator[Batchwise]:
    dtype = getattr(torch, plan.dtype)
    model = BertAdapterModel.from_pretrained(str(base_folder(folder)), torch_dtype=dtype)
    for tenant in range(plan.tenants):
        path = adapter_folder(folder, Depth.ALL, tenant)
        _add(model, adapter_name(tenant), load_file(path / "adapter_model.safetensors"))
    model = model.to(plan.device, dtype).eval()

    def forward(ids: Tensor, mask: Tensor, tenants: tuple[int, ...]) -> Tensor:
        order = sorted(range(len(tenants)), key=tenants.__getitem__)
        sizes = {tenant: len(list(rows)) for tenant, rows in itertools.groupby(sorted(tenants))}
        names = [adapter_name(tenant) for tenant in sizes]
        model.set_active_adapters(BatchSplit(*names, batch_sizes=list(sizes.values())))
        outputs = model(input_ids=ids[order], attention_mask=mask[order])
        logits = torch.cat([each.logits for each in outputs.head_outputs])
        back = torch.empty_like(logits)
        back[order] = logits
        return back.float().softmax(-1)

    yield Batchwise(plan, forward)


def _add(model: BertAdapterModel, name: str, tensors: dict[str, Tensor]) -> None:
    model.add_adapter(name, config=LoRAConfig(r=LORA_RANK, alpha=LORA_ALPHA, attn_matrices=["q", "v"]))
    model.add_classification_head(name, num_labels=LABELS, layers=2, activation_function="tanh")
    with torch.no_grad():
        for number, layer in enumerate(model.bert.encoder.layer):
            for target in TARGETS:
                lora = getattr(layer.attention.self, target).loras[name]
                source = f"base_model.model.bert.encoder.layer.{number}.attention.self.{target}"
                lora.lora_A.copy_(tensors[f"{source}.lora_A.weight"])
                lora.lora_B.copy_(tensors[f"{source}.lora_B.weight"])
        pooler, (dense, classifier) = model.bert.pooler.dense, _linears(model.heads[name])
        dense.weight.copy_(pooler.weight)
        dense.bias.copy_(pooler.bias)
        classifier.weight.copy_(tensors["base_model.model.classifier.weight"])
        classifier.bias.copy_(tensors["base_model.model.classifier.bias"])


def _linears(head: torch.nn.Module) -> list[torch.nn.Linear]:
    return [module for module in head.modules() if isinstance(module, torch.nn.Linear)]
