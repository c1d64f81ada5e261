"""Stored rows decoded on the device, straight into the dtype that the model computes in."""

from __future__ import annotations

import torch
from torch import Tensor

from hmi.knowledge.store import CHUNK_ROWS


@torch.inference_mode()
def decode_rows(
    codes: Tensor, scales: Tensor | None, positions: Tensor, dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    """The rows `[n, H]` of a `hmi.knowledge.store.stored_rows.StoredRows`, all tensors on one device.

    To the bit what `StoredRows.decode` gives, rounded to `dtype`.

    Args:
        codes: int8 or float16 `[m, H]`.
        scales: float32 `[m]` for int8; None for float16.
        positions: int64 `[n]`; where one is `NO_ROW`, as for padding, the row is zero.
        out: `[n or more, H]` of `dtype`, contiguous: a buffer that is used again saves touching fresh pages.
    """
    shape = len(positions), codes.shape[1]
    out = torch.empty(shape, dtype=dtype, device=codes.device) if out is None else out[: len(positions)]
    # A GPU does it in one go. On a CPU, what one step writes shall still be in the core's cache for the next.
    size = CHUNK_ROWS if codes.device.type == "cpu" else max(1, len(positions))
    chunk = codes.new_empty(min(size, len(positions)), codes.shape[1])
    wide = out if dtype is torch.float32 else torch.empty_like(chunk, dtype=torch.float32)
    for start in range(0, len(positions), size):
        part = positions[start : start + size]
        target = out[start : start + len(part)]
        values = target if dtype is torch.float32 else wide[: len(part)]
        values.copy_(torch.index_select(codes, 0, part, out=chunk[: len(part)]))
        if scales is not None:
            values.mul_(scales.index_select(0, part)[:, None])
        if dtype is not torch.float32:
            target.copy_(values)
    return out
