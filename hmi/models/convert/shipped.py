"""Differences that come with this package: hPLMs of well-known pretrained models, distilled already."""

from __future__ import annotations

from pathlib import Path

import hmi
from hmi.models.convert.pretrained import pretrained_tensors
from hmi.models.convert.weight_diff import WeightDiff, read_weight_diff, weights_digest

__all__ = ["find_shipped_diff", "shipped_diff_path"]

_FOLDER = Path(hmi.__file__).parent / "differences"


def shipped_diff_path(name: str, k: int) -> Path:
    """Where the difference of the pretrained model `name` at `k` is kept."""
    return _FOLDER / f"{name}-k{k}.safetensors"


def find_shipped_diff(source: Path, k: int) -> WeightDiff | None:
    """The difference for the pretrained weights in a transformers folder, whatever it is called. Raises `InvalidInput`
    where the folder is not understood."""
    found = [read_weight_diff(path) for path in sorted(_FOLDER.glob(f"*-k{k}.safetensors"))]
    if not found:
        return None
    digest = weights_digest(pretrained_tensors(source))
    return next((each for each in found if each.source == digest), None)
