"""Tiny seeded models for tests, made in milliseconds and equal in every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from hmi.models.convert import convert_pretrained

__all__ = [
    "TINY_WORDS",
    "tiny_base",
    "tiny_bert_config",
    "tiny_bert_folder",
    "tiny_decoder_folder",
    "tiny_gpt2",
    "tiny_llama",
    "tiny_tokenizer",
]

ModelT = TypeVar("ModelT", bound=PreTrainedModel)

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TINY_WORDS = [f"w{number}" for number in range(95)]


def tiny_tokenizer() -> Tokenizer:
    """One word, one id: `w0` is 5, `w1` is 6, ... in [CLS] and [SEP]."""
    vocabulary = {token: index for index, token in enumerate([*_SPECIAL, *TINY_WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def tiny_bert_config(**changes: int) -> BertConfig:
    shapes = {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 48,
    }
    config: BertConfig = BertConfig.from_dict(shapes | changes)
    return config


def tiny_bert_folder(folder: Path, *, seed: int = 7, **changes: int) -> Path:
    """A transformers folder of a BERT whose weights are large enough for every part to matter."""
    torch.manual_seed(seed)
    model = BertModel(tiny_bert_config(**changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm.weight" not in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def tiny_gpt2(*, seed: int = 7, **changes: Any) -> GPT2LMHeadModel:
    shapes = {"vocab_size": 100, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 128, "eos_token_id": 3}
    config = GPT2Config.from_dict(shapes | changes)
    return _drawn(GPT2LMHeadModel, config, seed)


def tiny_llama(*, seed: int = 7, **changes: Any) -> LlamaForCausalLM:
    """Two heads of keys and values for four of queries."""
    shapes = {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "eos_token_id": 3,
    }
    config = LlamaConfig.from_dict(shapes | changes)
    return _drawn(LlamaForCausalLM, config, seed)


def tiny_decoder_folder(model: PreTrainedModel, folder: Path) -> Path:
    """The model's transformers folder, with the tiny tokenizer."""
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _drawn(kind: type[ModelT], config: Any, seed: int) -> ModelT:
    torch.manual_seed(seed)
    model: ModelT = kind(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                parameter.normal_(0, 0.2)
    model.train(False)
    return model


def tiny_base(folder: Path, *, k: int) -> Path:
    """A base artifact of the tiny BERT, not calibrated."""
    convert_pretrained(tiny_bert_folder(folder / "bert"), folder / f"k{k}", k=k)
    return folder / f"k{k}"
