"""What a base differs by from the pretrained model, kept in several ways: what comes back, and its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import torch
from torch import Tensor

from benchmarks.recipes.low_rank import RANK
from hmi.models.convert import WeightDiff
from hmi.spec import HPLMSpec

Tensors = Mapping[str, Tensor]


class Keep(StrEnum):
    """How matrices of the layers are kept; everything else is kept in float16, and with `UNROUNDED` in float32."""

    FOUR_BITS = "4 bits"
    PAIRS = f"pairs of rank {RANK}"
    UNROUNDED = "float32"


def keep(original: Tensors, changed: Tensors, how: Keep, spec: HPLMSpec) -> tuple[dict[str, Tensor], int]:
    """The tensors as they come back, float32, and the bytes that the difference takes."""
    if how is Keep.FOUR_BITS:
        difference = WeightDiff.between(original, changed, spec, {})
        return difference.apply(original), difference.nbytes
    if how is Keep.PAIRS:
        return _as_pairs(original, changed, spec)
    new = [each for name, each in changed.items() if name not in original or not torch.equal(each, original[name])]
    return dict(changed), sum(4 * each.numel() for each in new)


def _as_pairs(original: Tensors, changed: Tensors, spec: HPLMSpec) -> tuple[dict[str, Tensor], int]:
    """The best matrices of that rank, by singular values, as two factors in float16."""
    matrices = [name for name, each in original.items() if name.startswith("layers.") and each.dim() == 2]
    rest = WeightDiff.between(original, {**changed, **{name: original[name] for name in matrices}}, spec, {})
    tensors, nbytes = rest.apply(original), rest.nbytes
    for name in matrices:
        up, sizes, down = torch.linalg.svd(changed[name] - original[name], full_matrices=False)
        root = sizes[:RANK].sqrt()
        up, down = (up[:, :RANK] * root).half(), (root[:, None] * down[:RANK]).half()
        tensors[name] += up.float() @ down.float()
        nbytes += up.nbytes + down.nbytes
    return tensors, nbytes
