"""Heads of many tenants that answer for every token of their rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hmi.adapters.adapter import Pooling
from hmi.adapters.tiers import Resident

__all__ = ["TokenHeadPlan"]


class TokenHeadPlan:
    """Which rows of a batch have such a head and where their weights lie in the arena. Made on the host.

    Args:
        residents: One for each row of the batch, None where it asks for no classes; they must be pinned for as long as
            the plan is used.

    Attributes:
        rows: Of the batch, ascending: those that have such a head.
    """

    def __init__(self, residents: Sequence[Resident | None], width: int, device: torch.device | str) -> None:
        found = [
            (row, resident.head, resident.head_rows)
            for row, resident in enumerate(residents)
            if resident is not None and resident.head is not None and resident.head.pooling is Pooling.TOKENS
        ]
        self.rows = [row for row, _, _ in found]
        most = max((head.labels for _, head, _ in found), default=0)
        out = np.zeros((len(found), most), np.int64)
        out_bias = np.zeros((len(found), -(-most // width)), np.int64)
        absent = np.ones((len(found), 1, most), np.bool_)
        for place, (_, head, head_rows) in enumerate(found):
            out[place, : head.labels] = head_rows[head.out]
            bias_rows = head_rows[head.out_bias]
            out_bias[place, : len(bias_rows)] = bias_rows
            absent[place, :, : head.labels] = False
        self._rows = torch.tensor(self.rows, dtype=torch.int64, device=device)
        self._out = torch.from_numpy(out).to(device)
        self._out_bias = torch.from_numpy(out_bias).to(device)
        self._absent = torch.from_numpy(absent).to(device)

    def apply(self, arena: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The most likely label of each token of `rows`, and its probability.

        Args:
            arena: [rows, width], the bank's; row 0 is zero.
            hidden: [batch, tokens, width].

        Returns:
            int64 [n, tokens], places in the row's own labels; float32 [n, tokens], NaN where the logits are not finite.
        """
        x = hidden.index_select(0, self._rows).float()  # [n, tokens, width]
        most = self._out.shape[1]
        bias = functional.embedding(self._out_bias, arena).view(len(x), 1, -1)[:, :, :most].float()
        out = functional.embedding(self._out, arena).float().transpose(1, 2)  # [n, width, labels]
        logits = torch.baddbmm(bias, x, out).masked_fill_(self._absent, -torch.inf)  # [n, tokens, labels]
        scores, labels = logits.softmax(-1).max(-1)
        return labels, scores
