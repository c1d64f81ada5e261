"""Llama's settings and tensor names in transformers."""

from __future__ import annotations

import re

from torch import Tensor

from hmi.errors import InvalidInput
from hmi.models.convert.source import Config, activation_of, decoder_fields
from hmi.spec import Family, HPLMSpec, RowDtype

_PLAIN = {"embed_tokens.weight": "embeddings.word", "norm.weight": "norm.weight", "lm_head.weight": "head"}
_LAYER = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.o_proj": "o",
    "mlp.up_proj": "fc1",
    "mlp.down_proj": "fc2",
    "mlp.gate_proj": "gate",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "inner_norm",
}
_LAYER_NAME = re.compile(r"^layers\.(\d+)\.(.+)\.weight$")
_IGNORED = re.compile(r"rotary_emb\.inv_freq$|^score\.")


def read_spec(config: Config, k: int, row_dtype: RowDtype) -> HPLMSpec:
    for name in ("attention_bias", "mlp_bias"):
        if config.get(name):
            raise InvalidInput(f"{name} {config[name]!r} is not supported")
    return HPLMSpec(
        family=Family.LLAMA,
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate_size=config["intermediate_size"],
        max_positions=config["max_position_embeddings"],
        layer_norm_eps=config["rms_norm_eps"],
        activation=activation_of(config, "hidden_act", "silu"),
        k=k,
        row_dtype=row_dtype,
        kv_heads=config.get("num_key_value_heads"),
        head_size=config.get("head_dim"),
        rope_theta=_theta(config),
        tied=config.get("tie_word_embeddings", False),
        **decoder_fields(config),
    )


def _theta(config: Config) -> float:
    """transformers 5 writes `rope_parameters`, earlier versions `rope_theta` and `rope_scaling`."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise InvalidInput(f"rope_type {kind!r} is not supported; supported: default")
    return float(rope["rope_theta"] if "rope_theta" in rope else config.get("rope_theta", 10_000.0))


def rename(name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    plain = name.removeprefix("model.")
    if _IGNORED.search(plain):
        return {}
    if plain in _PLAIN:
        return {_PLAIN[plain]: tensor}
    layer = _LAYER_NAME.match(plain)
    if layer is None or layer[2] not in _LAYER:
        return None
    return {f"layers.{layer[1]}.{_LAYER[layer[2]]}.weight": tensor}
