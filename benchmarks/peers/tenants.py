"""The tenants on disk: a BERT with random weights, and LoRAs as the folders that PEFT writes.

Every engine reads these files, so all of them compute the same answers. The LoRAs are as strong as the projections they
sit on: an engine that left one out, or took a neighbour's, would be found out.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.peers.plan import (
    LABELS,
    LORA_ALPHA,
    LORA_RANK,
    TARGETS,
    VOCABULARY,
    Depth,
    Plan,
    adapter_folder,
    base_folder,
)

_LORA_SPREAD = 0.05
_HEAD_SPREAD = 0.2


def write_tenants(plan: Plan, folder: Path) -> None:
    """Write the model and both depths of every tenant's adapter."""
    torch.manual_seed(0)
    sizes = {name: getattr(plan.shape, name) for name in plan.shape.__slots__}
    config: BertConfig = BertConfig.from_dict({"vocab_size": VOCABULARY, "num_labels": LABELS, **sizes})
    BertForSequenceClassification(config).save_pretrained(base_folder(folder))
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.save(str(base_folder(folder) / "tokenizer.json"))
    layers = plan.shape.num_hidden_layers
    for tenant in range(plan.stored_tenants):
        _write(plan, adapter_folder(folder, Depth.UPPER, tenant), range(plan.k, layers), tenant)
        if tenant < plan.tenants:
            _write(plan, adapter_folder(folder, Depth.ALL, tenant), range(layers), tenant)


def _write(plan: Plan, folder: Path, layers: range, tenant: int) -> None:
    generator = torch.Generator().manual_seed(tenant)
    hidden = plan.shape.hidden_size

    def normal(spread: float, *size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator) * spread

    tensors = {
        "base_model.model.classifier.weight": normal(_HEAD_SPREAD, LABELS, hidden),
        "base_model.model.classifier.bias": normal(_HEAD_SPREAD, LABELS),
    }
    for layer in layers:
        for target in TARGETS:
            name = f"base_model.model.bert.encoder.layer.{layer}.attention.self.{target}"
            tensors[f"{name}.lora_A.weight"] = normal(_LORA_SPREAD, LORA_RANK, hidden)
            tensors[f"{name}.lora_B.weight"] = normal(_LORA_SPREAD, hidden, LORA_RANK)
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "r": LORA_RANK,
        "lora_alpha": LORA_ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(TARGETS),
        "layers_to_transform": list(layers),
        "modules_to_save": ["classifier", "score"],
        "inference_mode": True,
    }
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
