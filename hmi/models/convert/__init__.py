"""TODO"""

from __future__ import annotations

from hmi.models.convert.pretrained import (
    convert_pretrained,
    family_of,
    load_pretrained,
    pretrained_tensors,
    resolve_source,
)
from hmi.models.convert.shipped import find_shipped, shipped_file
from hmi.models.convert.weight_diff import WeightDiff, digest_of, read_difference

__all__ = [
    "WeightDiff",
    "convert_pretrained",
    "digest_of",
    "family_of",
    "find_shipped",
    "load_pretrained",
    "pretrained_tensors",
    "read_difference",
    "resolve_source",
    "shipped_file",
]
