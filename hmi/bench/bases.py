"""Base models with random weights: what a forward costs does not depend on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from hmi.bench.shapes import Shape
from hmi.bench.tenants import empty_tree
from hmi.bench.text import word_pieces
from hmi.knowledge import Keys, unigrams, union, window_keys
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import Table, TableMeta, encode, write_table
from hmi.models.convert import convert_pretrained
from hmi.models.families import load_tokenizer
from hmi.spec import HPLMSpec, read_spec

_BLOCK_ROWS = 16_384


def make_base(folder: Path, shape: Shape, k: int, tokenizer: Tokenizer | None = None) -> HPLMSpec:
    """Write a base artifact that looks its lower `k` layers up, beside the checkpoint it was converted from.

    Without a tokenizer it has the one of made-up words, see `text`.
    """
    from transformers import BertConfig, BertModel  # noqa: PLC0415 - seconds of import

    tokenizer = tokenizer or word_pieces()
    config = BertConfig.from_dict({"vocab_size": tokenizer.get_vocab_size(), **dataclasses.asdict(shape)})
    checkpoint = folder.with_name(f"{folder.name}-checkpoint")
    checkpoint.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensors = BertModel(config).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, checkpoint / "model.safetensors")
    config.to_json_file(checkpoint / "config.json", use_diff=False)
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    return convert_pretrained(checkpoint, folder, k=k)


def make_tree(folder: Path, base: Path, texts: list[str]) -> KnowledgeTree:
    """A tree of one domain, `general`, that holds every window of `texts`, with random rows.

    `base` is the folder of a base artifact, which is named after it.
    """
    spec = read_spec(base)
    if not spec.k:
        return empty_tree(spec)
    encoded = load_tokenizer(base).encode_batch_fast(texts)
    windows = window_keys(np.concatenate([np.array(each.ids) for each in encoded]), np.array([len(e) for e in encoded]))
    return fill_tree(folder, base, union([windows, unigrams(spec.vocab_size)]))


def fill_tree(folder: Path, base: Path, keys: Keys) -> KnowledgeTree:
    """The same of ascending keys, for a base with k > 0."""
    spec = read_spec(base)
    rng = np.random.default_rng(0)
    sizes = [len(part) for part in np.array_split(keys, range(_BLOCK_ROWS, len(keys), _BLOCK_ROWS))]
    blocks = (encode(rng.standard_normal((n, spec.hidden_size), np.float32), spec.row_dtype) for n in sizes)
    meta = TableMeta("general", base.name, spec.row_dtype, spec.hidden_size, len(keys))
    write_table(folder, meta, keys, blocks)
    return KnowledgeTree(1, {"general": None}, {"general": Table.open(folder)}, spec.row_dtype, spec.hidden_size)
