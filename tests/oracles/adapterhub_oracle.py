"""Writes a tiny BERT, adapters saved by AdapterHub's own library, inputs and that library's answers.

    PYTHONPATH=<where adapters and its transformers lie>:<this repository> python -m tests.oracles.adapterhub_oracle OUT

The library needs an older transformers than the project runs with, hence a process of its own.
`tests.oracles.adapterhub` starts it and reads the result:

    OUT/base/                  transformers folder of the model
    OUT/adapters/<name>/       as `save_adapter(..., use_safetensors=True)` writes them
    OUT/expected.safetensors   ids int64 [N, T], mask int64 [N, T], logits.<name> [N, labels], hidden.<name> [N, T, H]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from adapters import BertAdapterModel, DoubleSeqBnConfig, SeqBnConfig
from safetensors.torch import save_file

from tests.tiny import tiny_bert_folder

_SEED = 11

# Name -> configuration and head. Ranks are 32 / reduction_factor, rounded down.
_ADAPTERS: dict[str, tuple[Any, dict[str, Any] | None]] = {
    "pfeiffer": (SeqBnConfig(reduction_factor=4), {"num_labels": 2, "id2label": {0: "bad", 1: "good"}}),
    "houlsby": (DoubleSeqBnConfig(reduction_factor=2), {"num_labels": 3, "layers": 1, "use_pooler": True}),
    "upper": (
        SeqBnConfig(
            reduction_factor={"2": 2, "default": 16},
            non_linearity="gelu",
            scaling=0.5,
            leave_out=[0, 1],
            mh_adapter=True,
        ),
        {"num_labels": 7, "layers": 1},
    ),
    "upper_houlsby": (
        DoubleSeqBnConfig(reduction_factor=8, non_linearity="relu", leave_out=[0, 1]),
        {"num_labels": 3, "use_pooler": True, "activation_function": "relu", "multilabel": True},
    ),
    "linear_head": (SeqBnConfig(reduction_factor=32), {"num_labels": 7, "activation_function": None}),
    "narrow": (SeqBnConfig(reduction_factor=2), {"num_labels": 3}),
    "wide": (SeqBnConfig(reduction_factor=0.66, non_linearity="swish"), {"num_labels": 7}),
    "headless": (SeqBnConfig(reduction_factor=8), None),
}


def _randomise(model: torch.nn.Module, name: str) -> None:
    """Fresh adapters start as the identity; only random weights show a mistake."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if f".adapters.{name}." in key or key.startswith(f"heads.{name}."):
                parameter.normal_(0, 0.2)


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([3, 17, 9, 24])
    ids = torch.randint(5, 100, (len(lengths), int(lengths.max())))
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids * mask, mask


@torch.inference_mode()
def _answer(model: Any, name: str, ids: torch.Tensor, mask: torch.Tensor, with_head: bool) -> dict[str, torch.Tensor]:
    model.set_active_adapters(name)
    hidden = model.bert(input_ids=ids, attention_mask=mask).last_hidden_state
    answers = {f"hidden.{name}": hidden}
    if with_head:
        model.active_head = name
        answers[f"logits.{name}"] = model(input_ids=ids, attention_mask=mask).logits
    return {key: value.contiguous() for key, value in answers.items()}


def main(out: Path) -> None:
    base = tiny_bert_folder(out / "base")
    model = BertAdapterModel.from_pretrained(str(base)).eval()
    torch.manual_seed(_SEED)
    ids, mask = _inputs()
    expected = {"ids": ids, "mask": mask}
    for name, (config, head) in _ADAPTERS.items():
        model.add_adapter(name, config=config)
        if head is not None:
            model.add_classification_head(name, **head)
        _randomise(model, name)
        model.eval()
        folder = out / "adapters" / name
        folder.mkdir(parents=True)
        model.save_adapter(str(folder), name, use_safetensors=True)
        expected |= _answer(model, name, ids, mask, head is not None)
    save_file(expected, out / "expected.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
