"""Many tenants' adapters in one batch on a CPU: each row with its own weights, read from the device tier's arena.

Inside the layers the host only launches: for each group of rows one gather, and one batched product for each side of
the adapter, or one product for each adapter where an adapter has many rows. Everything is added in place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hmi.adapters.maths.plan import GatheredPlan, RowGroup, SiteGroup
from hmi.adapters.maths.single import activate
from hmi.spec import Placement, Site


class GatheredAdapters:
    """`ServingAdapters` by gathered weights. The plan's residents stay pinned while this object is used."""

    def __init__(self, arena: Tensor, plan: GatheredPlan) -> None:
        """`arena` [rows, hidden] is the device tier's."""
        self._arena = arena
        self._groups = plan.groups

    def has_lora(self, layer: int, site: Site) -> bool:
        return (layer, (site,)) in self._groups

    def reads_hidden(self, layer: int, place: Placement) -> bool:
        return any(not group.layout.before_norm for group in self._groups.get((layer, place), ()))

    def lora(self, layer: int, sites: SiteGroup, x: Tensor, y: Tensor) -> None:
        for group in self._groups.get((layer, sites), ()):
            own = x[group.rows]  # [rows, tokens, in]
            down, *ups = self._gather(group)
            down = _vectors(down, group.op.rank, own.shape[2])  # [adapters or rows, ranks, in]
            spans = group.spans or (slice(None),)
            starts = itertools.accumulate((span.rank for _, span in group.op.loras), initial=0)
            inners = [
                torch.bmm(own, down.transpose(1, 2))  # [rows, tokens, ranks]
                if group.spans is None
                else (own[rows].flatten(0, 1) @ down[number].t()).view(-1, own.shape[1], group.op.rank)
                for number, rows in enumerate(spans)
            ]
            for (site, lora), start, up in zip(group.op.loras, starts, ups, strict=False):
                wide = _vectors(up, lora.rank, lora.outputs)  # [adapters or rows, rank, out]
                own_y = y[group.rows, :, site]  # [rows, tokens, out]
                for number, (rows, inner) in enumerate(zip(spans, inners, strict=True)):
                    some = inner[:, :, start : start + lora.rank]  # [rows, tokens, rank]
                    # In place even where y is a slice of q, k and v together: half the time of a product and a sum.
                    if group.spans is None:
                        own_y.baddbmm_(some, wide)
                    else:
                        own_y[rows].flatten(0, 1).addmm_(some.flatten(0, 1), wide[number])

    def bottleneck(
        self, layer: int, place: Placement, total: Tensor, hidden: Tensor | None, norm: Callable[[Tensor], Tensor]
    ) -> None:
        for group in self._groups.get((layer, place), ()):
            own = total[group.rows]  # [rows, tokens, hidden]
            if group.layout.before_norm:
                x = norm(own)
            elif hidden is not None:
                x = hidden[group.rows]
            else:
                raise ValueError("an adapter reads the output before the residual, and it was not given")
            down, down_bias, up = self._gather(group)
            rank, width = group.op.rank, own.shape[2]
            down = _vectors(down, rank, width).transpose(1, 2)  # [adapters or rows, hidden, rank]
            down_bias = _vectors(down_bias, 1, rank)  # [adapters or rows, 1, rank]
            # The bias is the last row of `up` and is multiplied by one: a single product adds everything.
            up = _vectors(up, rank + 1, width)  # [adapters or rows, rank + 1, hidden]
            if group.spans is None:
                inner = activate(group.layout.activation, torch.baddbmm(down_bias, x, down))  # [rows, tokens, rank]
                own.baddbmm_(F.pad(inner, (0, 1), value=1.0), up)
                continue
            for number, rows in enumerate(group.spans):
                some = torch.addmm(down_bias[number], x[rows].flatten(0, 1), down[number])  # [rows * tokens, rank]
                inner = activate(group.layout.activation, some)
                own[rows].flatten(0, 1).addmm_(F.pad(inner, (0, 1), value=1.0), up[number])

    def _gather(self, group: RowGroup) -> tuple[Tensor, ...]:
        """Gather the op's matrices in one call: [adapters or rows, rows of the matrix, width of the arena] each."""
        gathered = F.embedding(group.index, self._arena)
        count = group.rows.stop - group.rows.start if group.spans is None else len(group.spans)
        parts = torch.split(gathered, [count * len(matrix) for matrix in group.op.matrices])
        return tuple(part.view(count, -1, self._arena.shape[1]) for part in parts)


def _vectors(matrix: Tensor, vectors: int, length: int) -> Tensor:
    """[n, rows, width] -> [n, vectors, length]; a vector longer than the arena's width takes several rows."""
    return matrix.view(matrix.shape[0], vectors, -1)[:, :, :length]
