"""Pretrained models (transformers folders, GGUF files, hub repositories) converted to base artifacts.

`pretrained.py` is the place to start; there is a module for each family's names and settings. `weight_diff.py` keeps a
distilled model as a small difference from the pretrained weights; some of them ship with the package.
"""

from __future__ import annotations

from hmi.models.convert.files import resolve_source
from hmi.models.convert.pretrained import convert_pretrained, family_of, load_pretrained, pretrained_tensors
from hmi.models.convert.weight_diff import (
    WeightDiff,
    find_shipped_diff,
    read_weight_diff,
    shipped_diff_path,
    weights_digest,
)

__all__ = [
    "WeightDiff",
    "convert_pretrained",
    "family_of",
    "find_shipped_diff",
    "load_pretrained",
    "pretrained_tensors",
    "read_weight_diff",
    "resolve_source",
    "shipped_diff_path",
    "weights_digest",
]
