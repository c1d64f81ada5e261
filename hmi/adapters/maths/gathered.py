"""Many tenants' adapters in one batch: each row with its own weights, read from the bank's arena.

Inside the layers the host does nothing but launch: one gather for a layout at a place and one batched product for
each side of it, or one product for each adapter where an adapter has many tokens in the batch. Everything is
added in place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from hmi.adapters.maths.plan import GatheredPlan, Inputs, Part
from hmi.adapters.maths.single import activate
from hmi.spec import Placement, Site

__all__ = ["GatheredAdapters"]


class GatheredAdapters:
    """The adapters of one batch on its device.

    Args:
        arena: [rows, hidden], the bank's. The plan's residents must stay pinned while this object is used.
    """

    def __init__(self, arena: Tensor, plan: GatheredPlan) -> None:
        self._arena = arena
        self._parts = plan.parts

    def has_lora(self, layer: int, site: Site) -> bool:
        """Whether any row has a LoRA at a site that is computed alone (not q, k or v)."""
        return (layer, (site,)) in self._parts

    def reads_hidden(self, layer: int, place: Placement) -> bool:
        """Whether a bottleneck there reads the dense layer's output before the residual is added."""
        return any(not part.layout.before_norm for part in self._parts.get((layer, place), ()))

    def lora(self, layer: int, sites: Inputs, x: Tensor, y: Tensor) -> None:
        """Add to the outputs y [batch, tokens, sites, out] of linear layers side by side what each row's LoRA gives.

        x [batch, tokens, in] is what they read. `sites` are those that the plan has together.
        """
        for part in self._parts.get((layer, sites), ()):
            own = x[part.rows]
            down, *ups = self._matrices(part)
            down = _vectors(down, part.step.rank, own.shape[2])  # [adapters or rows, ranks, in]
            spans = part.spans or (slice(None),)
            starts = [0, *itertools.accumulate(span.rank for _, span in part.step.loras)]
            inners = [
                torch.bmm(own, down.transpose(1, 2))  # [rows, tokens, ranks]
                if part.spans is None
                else (own[rows].flatten(0, 1) @ down[number].t()).view(-1, own.shape[1], part.step.rank)
                for number, rows in enumerate(spans)
            ]
            for (position, lora), start, up in zip(part.step.loras, starts, ups, strict=False):
                wide = _vectors(up, lora.rank, lora.outputs)  # [adapters or rows, rank, out]
                own_y = y[part.rows, :, position]
                for number, (rows, inner) in enumerate(zip(spans, inners, strict=True)):
                    some = inner[:, :, start : start + lora.rank]
                    # In place even where y is a slice of q, k and v together: half the time of a product and a sum.
                    if part.spans is None:
                        own_y.baddbmm_(some, wide)
                    else:
                        own_y[rows].flatten(0, 1).addmm_(some.flatten(0, 1), wide[number])

    def bottleneck(
        self, layer: int, place: Placement, total: Tensor, hidden: Tensor | None, norm: Callable[[Tensor], Tensor]
    ) -> None:
        """Add each row's bottleneck output to `total`.

        Args:
            total: [batch, tokens, hidden], the sub-layer's output plus its residual.
            hidden: The sub-layer's output alone; needed where `reads_hidden`.
            norm: The sub-layer's own LayerNorm, for adapters that read norm(total).
        """
        for part in self._parts.get((layer, place), ()):
            own = total[part.rows]
            if part.layout.before_norm:
                x = norm(own)
            elif hidden is not None:
                x = hidden[part.rows]
            else:
                raise ValueError("an adapter that reads the output before the residual, and it was not given")
            down, down_bias, up = self._matrices(part)
            rank, width = part.step.rank, own.shape[2]
            down, up = _vectors(down, rank, width).transpose(1, 2), _vectors(up, rank + 1, width)
            down_bias = _vectors(down_bias, 1, rank)
            # The bias is the last row of `up`, and meets a one: one product adds everything.
            if part.spans is None:
                inner = activate(part.layout.activation, torch.baddbmm(down_bias, x, down))
                own.baddbmm_(functional.pad(inner, (0, 1), value=1.0), up)
                continue
            for number, rows in enumerate(part.spans):
                some = torch.addmm(down_bias[number], x[rows].flatten(0, 1), down[number])
                inner = activate(part.layout.activation, some)
                own[rows].flatten(0, 1).addmm_(functional.pad(inner, (0, 1), value=1.0), up[number])

    def _matrices(self, part: Part) -> tuple[Tensor, ...]:
        """Each matrix of the step, [adapters or rows, rows of the matrix, width of the arena], gathered at once."""
        gathered = functional.embedding(part.index, self._arena)
        count = part.rows.stop - part.rows.start if part.spans is None else len(part.spans)
        parts = torch.split(gathered, [count * len(columns) for columns in part.step.columns])
        return tuple(each.view(count, -1, self._arena.shape[1]) for each in parts)


def _vectors(matrix: Tensor, vectors: int, length: int) -> Tensor:
    """[n, rows, width] as [n, vectors, length]: a vector longer than the arena is wide takes several rows."""
    return matrix.view(matrix.shape[0], vectors, -1)[:, :, :length]
