"""GPT-2 of a transformers folder, under the artifact's names."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from hmi.errors import InvalidInput
from hmi.models.convert.source import Config, Tensors, activation_of, eos_ids_of, identity_projection
from hmi.spec import Family, HPLMSpec, RowDtype

__all__ = ["read_spec", "rename", "window_tensors"]

_WINDOW_POSITIONS = slice(0, 3)
_PLAIN = {
    "wte.weight": "embeddings.word",
    "wpe.weight": "embeddings.position",
    "ln_f.weight": "norm.weight",
    "ln_f.bias": "norm.bias",
    "lm_head.weight": "head",
}
_NORMS = {"ln_1": "attention_norm", "ln_2": "inner_norm"}
_LINEARS = {"attn.c_proj": "o", "mlp.c_fc": "fc1", "mlp.c_proj": "fc2"}
_JOINED = "attn.c_attn"  # q, k and v side by side
_LAYER_NAME = re.compile(r"^h\.(\d+)\.(.+)\.(weight|bias)$")
_IGNORED = re.compile(r"^h\.\d+\.attn\.(bias|masked_bias)$|^score\.|^classifier\.")


def read_spec(config: Config, k: int, row_dtype: RowDtype) -> HPLMSpec:
    for name, wanted in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        if config.get(name, wanted) is not wanted:
            raise InvalidInput(f"{name} {config[name]!r} is not supported")
    eos = eos_ids_of(config)
    padding = config.get("pad_token_id")
    return HPLMSpec(
        family=Family.GPT2,
        vocab_size=config["vocab_size"],
        hidden_size=config["n_embd"],
        layers=config["n_layer"],
        heads=config["n_head"],
        intermediate_size=config.get("n_inner") or 4 * config["n_embd"],
        max_positions=config["n_positions"],
        type_vocab_size=0,
        layer_norm_eps=config["layer_norm_epsilon"],
        activation=activation_of(config, "activation_function", "gelu_new"),
        pad_token_id=(eos[0] if eos else 0) if padding is None else padding,
        k=k,
        row_dtype=row_dtype,
        has_pooler=False,
        tied=config.get("tie_word_embeddings", True),
        eos_token_ids=eos,
    )


def rename(name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    plain = name.removeprefix("transformer.")
    if _IGNORED.match(plain):
        return {}
    if plain in _PLAIN:
        return {_PLAIN[plain]: tensor}
    layer = _LAYER_NAME.match(plain)
    if layer is None:
        return None
    number, part, kind = layer.groups()
    if part in _NORMS:
        return {f"layers.{number}.{_NORMS[part]}.{kind}": tensor}
    # GPT-2 keeps its matrices as [in, out].
    turned = tensor.T if kind == "weight" else tensor
    if part == _JOINED:
        return {f"layers.{number}.{site}.{kind}": each for site, each in zip("qkv", turned.chunk(3), strict=True)}
    return {f"layers.{number}.{_LINEARS[part]}.{kind}": turned} if part in _LINEARS else None


def window_tensors(tensors: Tensors, spec: HPLMSpec) -> dict[str, Tensor]:
    return identity_projection(spec) | {
        "window.position": tensors["embeddings.position"][_WINDOW_POSITIONS].clone(),
        "correction.position": torch.zeros_like(tensors["embeddings.position"]),
    }
