"""GPT-2's settings and tensor names in transformers."""

from __future__ import annotations

import re

from torch import Tensor

from hmi.errors import InvalidInput
from hmi.models.convert.source import Config, activation_of, decoder_fields
from hmi.spec import Family, HPLMSpec, RowDtype

_PLAIN = {
    "wte.weight": "embeddings.word",
    "wpe.weight": "embeddings.position",
    "ln_f.weight": "norm.weight",
    "ln_f.bias": "norm.bias",
    "lm_head.weight": "head",
}
_NORMS = {"ln_1": "attention_norm", "ln_2": "inner_norm"}
_LINEARS = {"attn.c_proj": "o", "mlp.c_fc": "fc1", "mlp.c_proj": "fc2"}
_FUSED_QKV = "attn.c_attn"
_LAYER_NAME = re.compile(r"^h\.(\d+)\.(.+)\.(weight|bias)$")
_IGNORED = re.compile(r"^h\.\d+\.attn\.(bias|masked_bias)$|^score\.|^classifier\.")


def read_spec(config: Config, k: int, row_dtype: RowDtype) -> HPLMSpec:
    for name, supported in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        if config.get(name, supported) is not supported:
            raise InvalidInput(f"{name} {config[name]!r} is not supported")
    return HPLMSpec(
        family=Family.GPT2,
        vocab_size=config["vocab_size"],
        hidden_size=config["n_embd"],
        layers=config["n_layer"],
        heads=config["n_head"],
        intermediate_size=config.get("n_inner") or 4 * config["n_embd"],
        max_positions=config["n_positions"],
        layer_norm_eps=config["layer_norm_epsilon"],
        activation=activation_of(config, "activation_function", "gelu_new"),
        k=k,
        row_dtype=row_dtype,
        tied=config.get("tie_word_embeddings", True),
        **decoder_fields(config),
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
    # GPT-2 stores its matrices as [in, out].
    transposed = tensor.T if kind == "weight" else tensor
    if part == _FUSED_QKV:
        return {f"layers.{number}.{site}.{kind}": each for site, each in zip("qkv", transposed.chunk(3), strict=True)}
    return {f"layers.{number}.{_LINEARS[part]}.{kind}": transposed} if part in _LINEARS else None
