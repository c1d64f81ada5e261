"""Heads of many tenants that answer for whole sequences, over one batch, and the plain maths of one head."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hmi.adapters.adapter import Activation, Head, Pooling
from hmi.adapters.maths.single import activate
from hmi.adapters.tiers import HeadLayout, Resident

__all__ = ["HeadPlan", "HeadTensors", "Pooler", "apply_head", "mean_pool", "pool"]

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


def last_states(hidden: Tensor, mask: Tensor) -> Tensor:
    """Those of the last real tokens: hidden [batch, tokens, hidden], mask bool [batch, tokens] -> [batch, hidden]."""
    ends = mask.sum(1).clamp(min=1) - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), ends]


def pool(pooling: Pooling, hidden: Tensor, mask: Tensor) -> Tensor:
    """[batch, tokens, hidden] -> [batch, hidden]; as they are where the pooling is `TOKENS`."""
    match pooling:
        case Pooling.TOKENS:
            return hidden
        case Pooling.CLS:
            return hidden[:, 0]
        case Pooling.LAST:
            return last_states(hidden, mask)
        case Pooling.MEAN:
            return mean_pool(hidden, mask)


def apply_head(head: Head, tensors: HeadTensors, hidden: Tensor, mask: Tensor, pooler: Pooler | None) -> Tensor:
    """One head for every row, differentiable in `tensors`: logits [batch, labels], or [batch, tokens, labels].

    Args:
        head: Says pooling, transform and activation; its arrays are not read.
        pooler: The base model's dense + tanh, [n, hidden] -> [n, hidden].
    """
    x = pool(head.pooling, hidden, mask)
    if head.uses_base_pooler:
        x = _required(pooler)(x)
    if tensors.dense is not None:
        x = activate(head.dense_activation, functional.linear(x, tensors.dense, tensors.dense_bias))
    return functional.linear(x, tensors.out, tensors.out_bias)


class HeadPlan:
    """Which heads a batch has and where their weights lie in the arena. Made on the host, as `GatheredPlan` is.

    Args:
        residents: One for each row of the batch; they must be pinned for as long as the plan is used.

    Attributes:
        counts: int64 [batch], labels of each row's head; 0 without one, and for heads that answer for every token.
        first_only: Every row has such a head, and it reads nothing but the first token.
    """

    def __init__(self, residents: Sequence[Resident | None], width: int, device: torch.device | str) -> None:
        layouts: dict[HeadLayout, list[int]] = defaultdict(list)
        for row, resident in enumerate(residents):
            if resident is not None and resident.head is not None and resident.head.pooling is not Pooling.TOKENS:
                layouts[resident.head].append(row)
        where = {
            layout: np.stack([resident.head_rows for row in rows if (resident := residents[row]) is not None])
            for layout, rows in layouts.items()
        }
        batch = len(residents)
        self.counts = np.zeros(batch, np.int64)
        averaged, last = np.zeros((batch, 1), np.bool_), np.zeros((batch, 1), np.bool_)
        pooled: list[int] = []
        dense: dict[Activation, list[HeadLayout]] = defaultdict(list)
        most = max((layout.labels for layout in layouts), default=0)
        out = np.zeros((batch, most), np.int64)  # what no head fills points to the zero row
        out_bias = np.zeros((batch, -(-most // width)), np.int64)
        for layout, rows in layouts.items():
            self.counts[rows] = layout.labels
            averaged[rows] = layout.pooling is Pooling.MEAN
            last[rows] = layout.pooling is Pooling.LAST
            if layout.base_pooler:
                pooled += rows
            if layout.dense is not None:
                dense[layout.activation].append(layout)
            out[rows, : layout.labels] = where[layout][:, layout.out]
            bias_rows = where[layout][:, layout.out_bias]
            out_bias[rows, : bias_rows.shape[1]] = bias_rows
        self.first_only = bool((self.counts > 0).all() and not averaged.any() and not last.any())
        self._averaged = torch.from_numpy(averaged).to(device) if averaged.any() else None
        self._last = torch.from_numpy(last).to(device) if last.any() else None
        self._pooled = torch.tensor(pooled, device=device) if pooled else None
        self._all_pooled = len(pooled) == batch
        self._out = torch.from_numpy(out).to(device)
        self._out_bias = torch.from_numpy(out_bias).to(device)
        self._dense = [
            (
                activation,
                torch.tensor([row for layout in members for row in layouts[layout]], device=device),
                torch.from_numpy(np.concatenate([where[each][:, each.dense] for each in members])).to(device),
                torch.from_numpy(np.concatenate([where[each][:, each.dense_bias] for each in members])).to(device),
            )
            for activation, members in dense.items()
        ]

    def apply(self, arena: Tensor, hidden: Tensor, mask: Tensor | None, pooler: Pooler | None) -> Tensor:
        """Each row's own head.

        Args:
            arena: [rows, width], the bank's; row 0 is zero.
            hidden: [batch, tokens, width]; one token where `first_only`.
            mask: bool [batch, tokens], needed where a head reads more than the first token.
            pooler: The base model's dense + tanh, needed where a head reads it.

        Returns:
            logits float32 [batch, most labels], zero past a row's own label count.
        """
        x = hidden[:, 0]
        for chosen, pooling in ((self._averaged, Pooling.MEAN), (self._last, Pooling.LAST)):
            if chosen is not None:
                if mask is None:
                    raise ValueError("a head reads more than the first token, and no mask was given")
                x = torch.where(chosen, pool(pooling, hidden, mask), x)
        if self._all_pooled:
            x = _required(pooler)(x)
        elif self._pooled is not None:
            x = x.index_copy(0, self._pooled, _required(pooler)(x.index_select(0, self._pooled)))
        for activation, rows, dense, bias in self._dense:
            own = x.index_select(0, rows).unsqueeze(1)  # [n, 1, width]
            weights = functional.embedding(dense, arena).transpose(1, 2)
            own = activate(activation, torch.baddbmm(functional.embedding(bias, arena), own, weights))
            x = x.index_copy(0, rows, own.squeeze(1))
        most = self._out.shape[1]
        out_bias = functional.embedding(self._out_bias, arena).view(len(x), 1, -1)[:, :, :most].float()
        out = functional.embedding(self._out, arena).float().transpose(1, 2)  # [batch, width, labels]
        return torch.baddbmm(out_bias, x.unsqueeze(1).float(), out).squeeze(1)


def _required(pooler: Pooler | None) -> Pooler:
    if pooler is None:
        raise ValueError("a head reads the base model's pooler, and none was given")
    return pooler
