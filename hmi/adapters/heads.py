"""Heads of many tenants over one batch, and the plain maths of one head."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hmi.adapters.adapter import Activation, Head, Pooling
from hmi.adapters.bank import Resident
from hmi.adapters.layout import HeadLayout
from hmi.adapters.maths import activate

__all__ = ["HeadTensors", "Pooler", "apply_head", "apply_heads", "mean_pool"]

Pooler = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class HeadTensors:
    """dense [hidden, hidden], dense_bias [hidden] (both or neither), out [labels, hidden], out_bias [labels]."""

    dense: Tensor | None
    dense_bias: Tensor | None
    out: Tensor
    out_bias: Tensor

    @classmethod
    def of(cls, head: Head, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> HeadTensors:
        """A head's weights, copied to `device` as `dtype`."""
        arrays = (head.dense, head.dense_bias, head.out, head.out_bias)
        dense, dense_bias, out, out_bias = (
            None if array is None else torch.from_numpy(array).to(device=device, dtype=dtype, copy=True)
            for array in arrays
        )
        if out is None or out_bias is None:
            raise ValueError("a head without an output layer")
        return cls(dense, dense_bias, out, out_bias)


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean over real tokens: hidden [batch, tokens, hidden], mask bool [batch, tokens] -> [batch, hidden].

    Summed in float32, whatever the states are in; a row without a real token gives zeros.
    """
    weights = mask.to(torch.float32).unsqueeze(1)  # [batch, 1, tokens]
    total = torch.bmm(weights, hidden.float()).squeeze(1)
    return (total / weights.sum(dim=2).clamp(min=1)).to(hidden.dtype)


def apply_head(head: Head, tensors: HeadTensors, hidden: Tensor, mask: Tensor, pooler: Pooler | None) -> Tensor:
    """One head for every row, differentiable in `tensors`: logits [batch, labels].

    Args:
        head: Says pooling, transform and activation; its arrays are not read.
        pooler: The base model's dense + tanh, [n, hidden] -> [n, hidden].
    """
    x = hidden[:, 0] if head.pooling is Pooling.CLS else mean_pool(hidden, mask)
    if head.uses_base_pooler:
        x = _required(pooler)(x)
    if tensors.dense is not None:
        x = activate(head.dense_activation, functional.linear(x, tensors.dense, tensors.dense_bias))
    return functional.linear(x, tensors.out, tensors.out_bias)


def apply_heads(
    arena: Tensor, residents: Sequence[Resident | None], hidden: Tensor, mask: Tensor, pooler: Pooler | None
) -> tuple[Tensor, Tensor]:
    """Each row's own head.

    Args:
        arena: [rows, width], the bank's; row 0 is zero.
        residents: One for each row of the batch; they must be pinned.
        hidden: [batch, tokens, width], mask: bool [batch, tokens].
        pooler: The base model's dense + tanh, needed where a head reads it.

    Returns:
        logits float32 [batch, most labels], zero past a row's own label count, and the label counts,
        int64 [batch] on the CPU; 0 for a row without a head.
    """
    layouts: dict[HeadLayout, list[int]] = defaultdict(list)
    for row, resident in enumerate(residents):
        if resident is not None and resident.head is not None:
            layouts[resident.head].append(row)
    arena_rows = {
        layout: np.stack([resident.head_rows for row in rows if (resident := residents[row]) is not None])
        for layout, rows in layouts.items()
    }
    x = _pool(layouts, hidden, mask)
    reading = [row for layout, rows in layouts.items() if layout.base_pooler for row in rows]
    if reading:
        selected = torch.tensor(reading, device=hidden.device)
        x = x.index_copy(0, selected, _required(pooler)(x.index_select(0, selected)))
    x = _apply_dense(arena, layouts, arena_rows, x)
    return _apply_out(arena, layouts, arena_rows, x)


def _required(pooler: Pooler | None) -> Pooler:
    if pooler is None:
        raise ValueError("a head reads the base model's pooler, and none was given")
    return pooler


def _pool(layouts: dict[HeadLayout, list[int]], hidden: Tensor, mask: Tensor) -> Tensor:
    """[batch, width]: the mean where a row's head wants it, else the first token."""
    first = hidden[:, 0]
    averaged = np.zeros((hidden.shape[0], 1), np.bool_)
    for layout, rows in layouts.items():
        if layout.pooling is Pooling.MEAN:
            averaged[rows] = True
    if not averaged.any():
        return first
    return torch.where(torch.from_numpy(averaged).to(hidden.device), mean_pool(hidden, mask), first)


def _apply_dense(
    arena: Tensor, layouts: dict[HeadLayout, list[int]], arena_rows: dict[HeadLayout, NDArray[np.int64]], x: Tensor
) -> Tensor:
    alike: dict[Activation, list[HeadLayout]] = defaultdict(list)
    for layout in layouts:
        if layout.dense is not None:
            alike[layout.activation].append(layout)
    for activation, members in alike.items():
        rows = torch.tensor([row for layout in members for row in layouts[layout]], device=x.device)
        dense = _gather(arena, np.concatenate([arena_rows[layout][:, layout.dense] for layout in members]))
        bias = _gather(arena, np.concatenate([arena_rows[layout][:, layout.dense_bias] for layout in members]))
        own = x.index_select(0, rows).unsqueeze(1)  # [n, 1, width]
        own = activate(activation, torch.baddbmm(bias, own, dense.transpose(1, 2))).squeeze(1)
        x = x.index_copy(0, rows, own)
    return x


def _apply_out(
    arena: Tensor, layouts: dict[HeadLayout, list[int]], arena_rows: dict[HeadLayout, NDArray[np.int64]], x: Tensor
) -> tuple[Tensor, Tensor]:
    batch, width = x.shape
    most = max((layout.labels for layout in layouts), default=0)
    counts = np.zeros(batch, np.int64)
    out = np.zeros((batch, most), np.int64)  # what no head fills points to the zero row
    out_bias = np.zeros((batch, -(-most // width)), np.int64)
    for layout, rows in layouts.items():
        counts[rows] = layout.labels
        out[rows, : layout.labels] = arena_rows[layout][:, layout.out]
        bias_rows = arena_rows[layout][:, layout.out_bias]
        out_bias[rows, : bias_rows.shape[1]] = bias_rows
    bias = _gather(arena, out_bias).view(batch, 1, -1)[:, :, :most]  # [batch, 1, labels]
    logits = torch.baddbmm(bias.float(), x.unsqueeze(1).float(), _gather(arena, out).float().transpose(1, 2))
    return logits.squeeze(1), torch.from_numpy(counts)


def _gather(arena: Tensor, index: NDArray[np.int64]) -> Tensor:
    return functional.embedding(torch.from_numpy(index).to(arena.device), arena)
