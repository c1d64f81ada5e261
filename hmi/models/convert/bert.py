"""BERT's settings and tensor names in transformers."""

from __future__ import annotations

import re

from torch import Tensor

from hmi.errors import InvalidInput
from hmi.models.convert.source import Config, activation_of
from hmi.spec import Family, HPLMSpec, RowDtype

_EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "embeddings.word",
    "embeddings.position_embeddings.weight": "embeddings.position",
    "embeddings.token_type_embeddings.weight": "embeddings.token_type",
    "embeddings.LayerNorm.weight": "embeddings.norm.weight",
    "embeddings.LayerNorm.bias": "embeddings.norm.bias",
    "pooler.dense.weight": "pooler.weight",
    "pooler.dense.bias": "pooler.bias",
}
_LAYER = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "o",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "output.LayerNorm": "output_norm",
}
_LAYER_NAME = re.compile(r"^encoder\.layer\.(\d+)\.(.+)\.(weight|bias)$")
# Buffers, and heads of pretraining, which serving does not use.
_IGNORED = re.compile(
    r"^(embeddings\.position_ids$|embeddings\.token_type_ids$|cls\.|classifier\.|qa_outputs\.|dropout)"
)


def read_spec(config: Config, k: int, row_dtype: RowDtype) -> HPLMSpec:
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise InvalidInput(f"position_embedding_type {config['position_embedding_type']!r} is not supported")
    if config.get("is_decoder"):
        raise InvalidInput("a BERT with is_decoder set attends to the left only; it is not an encoder")
    return HPLMSpec(
        family=Family.BERT,
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate_size=config["intermediate_size"],
        max_positions=config["max_position_embeddings"],
        type_vocab_size=config["type_vocab_size"],
        layer_norm_eps=config["layer_norm_eps"],
        activation=activation_of(config, "hidden_act", "gelu"),
        pad_token_id=config.get("pad_token_id") or 0,
        k=k,
        row_dtype=row_dtype,
    )


def rename(name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    plain = name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")
    if _IGNORED.match(plain):
        return {}
    layer = _LAYER_NAME.match(plain)
    if layer and layer[2] in _LAYER:
        return {f"layers.{layer[1]}.{_LAYER[layer[2]]}.{layer[3]}": tensor}
    return {_EMBEDDINGS[plain]: tensor} if plain in _EMBEDDINGS else None
