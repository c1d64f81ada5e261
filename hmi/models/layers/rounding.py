"""Rows rounded as a knowledge tree stores them, on the device that computed them.

The same arithmetic as `hmi.knowledge.store.rows.round_trip`, to the bit: an answer must not depend on whether a row was
looked up or computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmi.spec import RowDtype

__all__ = ["round_rows"]

_SMALLEST_PEAK = 2.0**-100  # below it a row is zero: its scale would not be a normal number


def round_rows(rows: Tensor, dtype: RowDtype) -> Tensor:
    """Rows float32 `[n, hidden]` as a table would give them back, float32.

    What is not finite stays so, or is too large for float16 and becomes so.
    """
    if dtype is RowDtype.FLOAT16:
        return rows.half().float()
    peak = rows.abs().amax(dim=1, keepdim=True)
    scale = peak / 127
    scale = torch.where(peak < _SMALLEST_PEAK, torch.zeros_like(scale), scale)
    # Up to 17 significant bits: then every product code x scale is exact.
    scale = ((scale.view(torch.int32) + 0x7F) & ~0x7F).view(torch.float32)
    divisor = torch.where(scale > 0, scale, torch.full_like(scale, torch.inf))
    # The sum has no negative zero, which an int8 code does not have either.
    return torch.round(rows / divisor) * scale + 0.0
