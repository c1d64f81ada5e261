"""Classification heads: the plain maths of one head, and the heads of many tenants over one batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters import Activation, Head, Pooling
from hmi.adapters.maths.single import activate
from hmi.adapters.tiers import HeadLayout, Resident

Pooler = Callable[[Tensor], Tensor]
"""The base model's dense + tanh: [n, hidden] -> [n, hidden]."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadTensors:
    """A head's weights as tensors, which may require gradients."""

    dense: Tensor | None  # [hidden, hidden]
    dense_bias: Tensor | None  # [hidden]; present where `dense` is
    out: Tensor  # [labels, hidden]
    out_bias: Tensor  # [labels]

    @classmethod
    def of(cls, head: Head, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> HeadTensors:
        tensors = {
            name: torch.from_numpy(array).to(device=device, dtype=dtype, copy=True)
            for name, array in head.arrays().items()
        }
        return cls(tensors.get("dense"), tensors.get("dense_bias"), tensors["out"], tensors["out_bias"])


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real tokens: hidden [batch, tokens, hidden], mask bool [batch, tokens] -> [batch, hidden].

    The sum is in float32 for every dtype; a row without a real token gives zeros.
    """
    weights = mask.to(torch.float32).unsqueeze(1)  # [batch, 1, tokens]
    total = torch.bmm(weights, hidden.float()).squeeze(1)  # [batch, hidden]
    return (total / weights.sum(dim=2).clamp(min=1)).to(hidden.dtype)


def pool(pooling: Pooling, hidden: Tensor, mask: Tensor) -> Tensor:
    """[batch, tokens, hidden], mask bool [batch, tokens] -> [batch, hidden]; unchanged for `Pooling.TOKENS`."""
    match pooling:
        case Pooling.TOKENS:
            return hidden
        case Pooling.CLS:
            return hidden[:, 0]
        case Pooling.LAST:
            ends = mask.sum(1).clamp(min=1) - 1  # [batch]
            return hidden[torch.arange(len(hidden), device=hidden.device), ends]
        case Pooling.MEAN:
            return mean_pool(hidden, mask)


def apply_head(head: Head, tensors: HeadTensors, hidden: Tensor, mask: Tensor, pooler: Pooler | None) -> Tensor:
    """Apply one head to every row, differentiable in `tensors`; the arrays of `head` are not read.

    hidden [batch, tokens, hidden], mask bool [batch, tokens] -> logits [batch, labels], or [batch, tokens, labels] for
    `Pooling.TOKENS`. `pooler` is needed where the head reads the base model's.
    """
    x = pool(head.pooling, hidden, mask)
    if head.uses_base_pooler:
        x = _required(pooler)(x)
    if tensors.dense is not None:
        x = activate(head.dense_activation, F.linear(x, tensors.dense, tensors.dense_bias))
    return F.linear(x, tensors.out, tensors.out_bias)


class HeadPlan:
    """The heads of a batch that answer for whole sequences, and where their weights lie in the arena.

    Made on the host. `residents` are those of the batch's rows; they stay pinned while the plan is used.

    Attributes:
        counts: int64 [batch], labels of each row's head; 0 for rows without one and for heads that answer for tokens.
        first_only: Every row has such a head, and it reads only the first token.
    """

    def __init__(self, residents: Sequence[Resident | None], width: int, device: torch.device | str) -> None:
        batch = len(residents)
        groups = _group_heads(residents, for_tokens=False)
        self.counts = np.zeros(batch, np.int64)
        pooling = {kind: np.zeros((batch, 1), np.bool_) for kind in (Pooling.MEAN, Pooling.LAST)}
        base_pooled: list[int] = []
        dense: dict[Activation, list[HeadLayout]] = defaultdict(list)
        for layout, (rows, _) in groups.items():
            self.counts[rows] = layout.labels
            if layout.pooling in pooling:
                pooling[layout.pooling][rows] = True
            if layout.base_pooler:
                base_pooled += rows
            if layout.dense is not None:
                dense[layout.activation].append(layout)
        chosen = {kind: rows for kind, rows in pooling.items() if rows.any()}
        self.first_only = bool((self.counts > 0).all() and not chosen)
        # bool [batch, 1], the rows of each pooling but that of the first token
        self._pooling = {kind: torch.from_numpy(rows).to(device) for kind, rows in chosen.items()}
        # int64 [n], rows that read the base model's pooler
        self._base_pooled = torch.tensor(base_pooled, device=device) if base_pooled else None
        self._all_base_pooled = len(base_pooled) == batch
        self._output = _Output(groups, batch, width, device)
        # For each activation: int64 [n] rows, [n, width] and [n, 1] arena rows of `dense` and `dense_bias`
        self._dense = [
            (
                activation,
                torch.tensor([row for layout in layouts for row in groups[layout][0]], device=device),
                torch.from_numpy(np.concatenate([groups[each][1][:, each.dense] for each in layouts])).to(device),
                torch.from_numpy(np.concatenate([groups[each][1][:, each.dense_bias] for each in layouts])).to(device),
            )
            for activation, layouts in dense.items()
        ]

    def apply(self, arena: Tensor, hidden: Tensor, mask: Tensor | None, pooler: Pooler | None) -> Tensor:
        """Apply each row's own head.

        Args:
            arena: [rows, width], the device tier's.
            hidden: [batch, tokens, width]; one token where `first_only`.
            mask: bool [batch, tokens], needed where a head reads more than the first token.

        Returns:
            Logits float32 [batch, most labels], zero past a row's own label count.
        """
        x = hidden[:, 0]  # [batch, width]
        for pooling, rows in self._pooling.items():
            if mask is None:
                raise ValueError("a head reads more than the first token, and no mask was given")
            x = torch.where(rows, pool(pooling, hidden, mask), x)
        if self._all_base_pooled:
            x = _required(pooler)(x)
        elif self._base_pooled is not None:
            x = x.index_copy(0, self._base_pooled, _required(pooler)(x.index_select(0, self._base_pooled)))
        for activation, rows, dense, bias in self._dense:
            own = x.index_select(0, rows).unsqueeze(1)  # [n, 1, width]
            weights = F.embedding(dense, arena).transpose(1, 2)  # [n, width, width]
            own = activate(activation, torch.baddbmm(F.embedding(bias, arena), own, weights))
            x = x.index_copy(0, rows, own.squeeze(1))
        return self._output.logits(arena, x.unsqueeze(1)).squeeze(1)


class TokenHeadPlan:
    """The heads of a batch that answer for every token, as `HeadPlan`. `rows` of the batch have one, ascending."""

    def __init__(self, residents: Sequence[Resident | None], width: int, device: torch.device | str) -> None:
        groups = _group_heads(residents, for_tokens=True)
        self.rows = sorted(row for rows, _ in groups.values() for row in rows)
        places = {row: place for place, row in enumerate(self.rows)}
        groups = {layout: ([places[row] for row in rows], where) for layout, (rows, where) in groups.items()}
        self._rows = torch.tensor(self.rows, dtype=torch.int64, device=device)
        self._output = _Output(groups, len(self.rows), width, device)
        absent = np.ones((len(self.rows), 1, self._output.labels), np.bool_)
        for layout, (own, _) in groups.items():
            absent[own, :, : layout.labels] = False
        # bool [n, 1, most labels], outputs that a row's head does not have
        self._absent = torch.from_numpy(absent).to(device)

    def apply(self, arena: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the most likely label of each token of `rows`, and its probability.

        arena [rows, width], hidden [batch, tokens, width] -> int64 [n, tokens], indices into the row's own labels; and
        float32 [n, tokens], NaN for logits that are not finite.
        """
        x = hidden.index_select(0, self._rows)  # [n, tokens, width]
        logits = self._output.logits(arena, x).masked_fill_(self._absent, -torch.inf)  # [n, tokens, most labels]
        scores, labels = logits.softmax(-1).max(-1)
        return labels, scores


_HeadGroups = Mapping[HeadLayout, tuple[list[int], NDArray[np.int64]]]
"""By layout: n rows of the batch, and [n, layout.rows] arena rows."""


def _group_heads(residents: Sequence[Resident | None], *, for_tokens: bool) -> _HeadGroups:
    rows: dict[HeadLayout, list[int]] = defaultdict(list)
    where: dict[HeadLayout, list[NDArray[np.int64]]] = defaultdict(list)
    for row, resident in enumerate(residents):
        head = resident.head if resident is not None else None
        if resident is not None and head is not None and (head.pooling is Pooling.TOKENS) == for_tokens:
            rows[head].append(row)
            where[head].append(resident.head_rows)
    return {head: (rows[head], np.stack(where[head])) for head in rows}


class _Output:
    """The output layers of n rows. Absent labels read the arena's zero row."""

    def __init__(self, groups: _HeadGroups, count: int, width: int, device: torch.device | str) -> None:
        self.labels = max((layout.labels for layout in groups), default=0)
        out = np.zeros((count, self.labels), np.int64)
        bias = np.zeros((count, -(-self.labels // width)), np.int64)
        for layout, (rows, where) in groups.items():
            out[rows, : layout.labels] = where[:, layout.out]
            bias_rows = where[:, layout.out_bias]
            bias[rows, : bias_rows.shape[1]] = bias_rows
        # int64 [n, labels] and [n, ceil(labels / width)] arena rows
        self._out = torch.from_numpy(out).to(device)
        self._bias = torch.from_numpy(bias).to(device)

    def logits(self, arena: Tensor, x: Tensor) -> Tensor:
        """x [n, tokens, width] -> float32 [n, tokens, labels]."""
        bias = F.embedding(self._bias, arena).view(len(x), 1, -1)[:, :, : self.labels].float()  # [n, 1, labels]
        out = F.embedding(self._out, arena).float().transpose(1, 2)  # [n, width, labels]
        return torch.baddbmm(bias, x.float(), out)


def _required(pooler: Pooler | None) -> Pooler:
    if pooler is None:
        raise ValueError("a head reads the base model's pooler, and none was given")
    return pooler
