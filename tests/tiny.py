"""Tiny seeded models for tests, made in milliseconds and the same in every run."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

from hmi.models.loader import convert_pretrained

__all__ = ["TINY_WORDS", "tiny_base", "tiny_bert_config", "tiny_bert_folder", "tiny_tokenizer"]

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
    """A transformers folder of a BERT whose weights are wide enough for every part to matter."""
    torch.manual_seed(seed)
    model = BertModel(tiny_bert_config(**changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm.weight" not in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def tiny_base(folder: Path, *, k: int) -> Path:
    """A base artifact of it, not calibrated."""
    convert_pretrained(tiny_bert_folder(folder / "bert"), folder / f"k{k}", k=k)
    return folder / f"k{k}"
