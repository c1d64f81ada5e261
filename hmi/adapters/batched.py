"""Many tenants' adapters in one batch: each row with its own weights, gathered from the arena.

Rows are grouped by kind and rank, so that a rank of 4 never pays for a neighbour's 64, and each group is
one gather per matrix and one batched matrix product. All index arithmetic is done when the batch is put
together and reaches the device in one copy; inside the layers the host does nothing but launch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hmi.adapters.bank import Resident
from hmi.adapters.layout import BodyLayout, BottleneckSpan, LoraSpan
from hmi.adapters.maths import Norm, activate
from hmi.spec import Placement, Site

__all__ = ["BatchedAdapters"]

Index = NDArray[np.int64]
PlaceT = TypeVar("PlaceT", tuple[int, Site], tuple[int, Placement])
SpanT = TypeVar("SpanT", LoraSpan, BottleneckSpan)


@dataclass(frozen=True, slots=True, eq=False)
class _Group(Generic[SpanT]):
    """Rows of the batch that can be computed as one at one place.

    Attributes:
        span: Shapes, the same for all of them; `layout`: order and activation, likewise.
        rows: [n], which rows of the batch; None: all, in order.
        matrices: For each matrix of the span, the arena rows it lies in, [n, rows of the matrix].
    """

    span: SpanT
    layout: BodyLayout
    rows: Tensor | None
    matrices: tuple[Tensor, ...]


class BatchedAdapters:
    """The adapters of one batch, as `AdapterMaths`.

    Args:
        arena: [rows, hidden], the bank's.
        residents: One for each row of the batch, None for a row without an adapter. They must stay
            pinned for as long as this object is used.
    """

    def __init__(self, arena: Tensor, residents: Sequence[Resident | None]) -> None:
        self._arena = arena
        layouts = _by_layout(residents)
        batch = len(residents)
        self._lora = _group(
            arena.device, batch, layouts, ("a", "b"), lambda layout: layout.lora, lambda layout, span: span.rank
        )
        self._bottleneck = _group(
            arena.device,
            batch,
            layouts,
            ("down", "down_bias", "up", "up_bias"),
            lambda layout: layout.bottleneck,
            lambda layout, span: (span.rank, layout.before_norm, layout.activation),
        )

    def lora(self, layer: int, site: Site, x: Tensor) -> Tensor | None:
        delta: Tensor | None = None
        for group in self._lora.get((layer, site), ()):
            span = group.span
            rows = x if group.rows is None else x.index_select(0, group.rows)  # [n, tokens, in]
            a = self._gather(group.matrices[0], span.rank, span.inputs)  # [n, rank, in]
            b = self._gather(group.matrices[1], span.rank, span.outputs)  # [n, rank, out]
            part = torch.bmm(torch.bmm(rows, a.transpose(1, 2)), b)  # [n, tokens, out]
            if group.rows is None:
                return part
            if delta is None:
                delta = x.new_zeros(x.shape[0], x.shape[1], span.outputs)
            delta.index_copy_(0, group.rows, part)
        return delta

    def bottleneck(self, layer: int, place: Placement, hidden: Tensor, residual: Tensor, norm: Norm) -> Tensor:
        result: Tensor | None = None
        for group in self._bottleneck.get((layer, place), ()):
            rank, width = group.span.rank, hidden.shape[2]
            own = hidden if group.rows is None else hidden.index_select(0, group.rows)  # [n, tokens, hidden]
            x = own
            if group.layout.before_norm:
                x = norm(own + (residual if group.rows is None else residual.index_select(0, group.rows)))
            down = self._gather(group.matrices[0], rank, width)  # [n, rank, hidden]
            down_bias = self._gather(group.matrices[1], 1, rank)  # [n, 1, rank]
            up = self._gather(group.matrices[2], rank, width)  # [n, rank, hidden]
            up_bias = self._gather(group.matrices[3], 1, width)  # [n, 1, hidden]
            inner = activate(group.layout.activation, torch.baddbmm(down_bias, x, down.transpose(1, 2)))
            part = own + torch.baddbmm(up_bias, inner, up)  # [n, tokens, hidden]
            if group.rows is None:
                return part
            if result is None:
                result = hidden.clone()
            result.index_copy_(0, group.rows, part)
        return hidden if result is None else result

    def _gather(self, index: Tensor, vectors: int, length: int) -> Tensor:
        """[n, vectors, length] out of the arena."""
        rows = functional.embedding(index, self._arena)  # [n, vectors * rows per vector, width]
        return rows.view(rows.shape[0], vectors, -1)[:, :, :length]


def _by_layout(residents: Sequence[Resident | None]) -> dict[BodyLayout, tuple[Index, Index]]:
    """For each layout: its rows of the batch [n], and their rows of the arena [n, layout.rows]."""
    found: dict[BodyLayout, list[tuple[int, Resident]]] = defaultdict(list)
    for row, resident in enumerate(residents):
        if resident is not None and resident.body.rows:
            found[resident.body].append((row, resident))
    return {
        layout: (np.asarray([row for row, _ in members], np.int64), np.stack([each.body_rows for _, each in members]))
        for layout, members in found.items()
    }


def _group(
    device: torch.device,
    batch: int,
    layouts: Mapping[BodyLayout, tuple[Index, Index]],
    fields: Sequence[str],
    spans: Callable[[BodyLayout], Mapping[PlaceT, SpanT]],
    alike: Callable[[BodyLayout, SpanT], Hashable],
) -> dict[PlaceT, list[_Group[SpanT]]]:
    """For each place, the groups of rows whose `alike` agrees, with the arena rows of their `fields`."""
    members: dict[tuple[PlaceT, Hashable], list[BodyLayout]] = defaultdict(list)
    for layout in layouts:
        for place, span in spans(layout).items():
            members[place, alike(layout, span)].append(layout)
    arrays: list[Index] = []
    for (place, _), group in members.items():
        rows = np.concatenate([layouts[layout][0] for layout in group])
        order = np.argsort(rows)
        arrays.append(rows[order])
        for field in fields:
            found = [layouts[layout][1][:, getattr(spans(layout)[place], field)] for layout in group]
            arrays.append(np.concatenate(found)[order])
    sent = iter(_send(arrays, device))
    groups: dict[PlaceT, list[_Group[SpanT]]] = {}
    for (place, _), group in members.items():
        rows_sent = next(sent)
        matrices = tuple(next(sent) for _ in fields)
        whole = rows_sent.shape[0] == batch  # ascending and complete: the identity
        span = spans(group[0])[place]
        groups.setdefault(place, []).append(_Group(span, group[0], None if whole else rows_sent, matrices))
    return groups


def _send(arrays: Sequence[Index], device: torch.device) -> list[Tensor]:
    """All arrays on the device, in one copy."""
    if not arrays:
        return []
    flat = torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays])).to(device)
    parts = torch.split(flat, [array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]
