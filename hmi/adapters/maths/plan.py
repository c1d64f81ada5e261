"""The plan of a batch's adapters on a CPU: which rows are computed together, and where their weights lie in the arena.

Rows whose adapters share a layout are adjacent, so a rank of 4 never pays for another row's rank of 64, and states are
read and written as slices. All index arithmetic happens here, on the host, while the device runs another batch, and
reaches the device in one copy.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmi.adapters.maths.crossover import Method, choose_method
from hmi.adapters.tiers import BodyLayout, BottleneckSpan, LoraSpan, Resident
from hmi.spec import Placement, Site

SiteGroup = tuple[Site, ...]
"""Linear layers that read the same states and whose adapters are computed together."""

LayerPlace = tuple[int, SiteGroup | Placement]
"""A layer, and where in it an adapter adds something: to linear layers (LoRA) or behind a sub-layer (bottleneck)."""

QKV = (Site.Q, Site.K, Site.V)
_UNFUSED: tuple[SiteGroup, ...] = (QKV[:1], QKV[1:], (Site.O,), (Site.FC1,), (Site.GATE,), (Site.FC2,))
_FUSED: tuple[SiteGroup, ...] = (QKV, *_UNFUSED[2:])

NO_LAYERS = range(0)


@dataclass(frozen=True, slots=True, eq=False)
class AdapterOp:
    """What the adapters of one layout add at one place. Each matrix is some rows of the layout."""

    # For each matrix, int64 [rows of the matrix]: its rows in the layout.
    #   LoRA: the `a` of all sites one below another, then the `b` of each site.
    #   Bottleneck: `down`; `down_bias`; `up` with `up_bias` as its last row.
    matrices: tuple[NDArray[np.int64], ...]
    # (index of the site in the place's group, span) of each site that has a LoRA; empty for a bottleneck.
    loras: tuple[tuple[int, LoraSpan], ...]
    bottleneck: BottleneckSpan | None  # None for LoRAs

    @property
    def rank(self) -> int:
        """The sum of the ranks that are computed side by side."""
        return self.bottleneck.rank if self.bottleneck else sum(span.rank for _, span in self.loras)


@dataclass(frozen=True, slots=True, eq=False)
class RowGroup:
    """Consecutive rows of the batch that run one op."""

    op: AdapterOp
    layout: BodyLayout
    # The group's rows of the batch. With gathered weights it may include neighbours, whose weights are the zero row.
    rows: slice
    # Per-adapter products: the rows of each distinct adapter, counted within `rows`.
    # None: one batched product with the gathered weights of every row.
    spans: tuple[slice, ...] | None
    # int64 [sum over matrices of n * rows of the matrix], the arena rows of each matrix after the other:
    # [n, rows of the matrix] flat, where n is the number of spans, or of rows where there are none.
    index: Tensor


class GatheredPlan:
    """The row groups of one batch by place, in the order of the batch's rows.

    Args:
        residents: One for each row of the batch, None for a row without an adapter. Every order is correct; rows
            sorted by `order_key` make the fewest groups.
        unfused: Layers that apply the adapters of q apart from those of k and v: an encoder's last layer where it
            computes first tokens only; all layers of a decoder, whose keys and values are narrower than its queries.
        row_bytes: Of the arena.
    """

    def __init__(
        self,
        residents: Sequence[Resident | None],
        device: torch.device | str,
        *,
        unfused: range = NO_LAYERS,
        row_bytes: int = 1536,
    ) -> None:
        self.groups: dict[LayerPlace, list[RowGroup]] = {}
        kind = torch.device(device).type
        drafts: list[tuple[LayerPlace, AdapterOp, BodyLayout, slice, tuple[slice, ...] | None]] = []
        arrays: list[NDArray[np.int64]] = []
        for rows, layout, members in _layout_runs(residents):
            spans = _adapter_spans(members)
            of_adapters = np.stack([members[span.start].body_rows for span in spans])  # [adapters, layout.rows]
            of_rows = np.stack([each.body_rows for each in members])  # [rows, layout.rows]
            padded_rows, of_rows = _pad_rows(rows, of_rows, len(residents))
            for place, op in _ops(layout, unfused):
                method = choose_method(kind, op.rank, len(members), len(spans), row_bytes=row_bytes)
                if method is Method.SEGMENTS:
                    drafts.append((place, op, layout, rows, spans))
                    arena_rows = of_adapters
                else:
                    drafts.append((place, op, layout, padded_rows, None))
                    arena_rows = of_rows
                arrays.append(np.concatenate([arena_rows[:, matrix].reshape(-1) for matrix in op.matrices]))
        if not drafts:
            return
        flat = torch.from_numpy(np.concatenate(arrays)).to(device, non_blocking=True)
        indices = torch.split(flat, [array.size for array in arrays])
        for (place, op, layout, group_rows, group_spans), index in zip(drafts, indices, strict=True):
            self.groups.setdefault(place, []).append(RowGroup(op, layout, group_rows, group_spans, index))


def order_key(resident: Resident | None) -> tuple[int, str]:
    """Sorting a batch's rows by this makes rows of one layout adjacent, and within it rows of one adapter."""
    return (0, "") if resident is None or not resident.body.rows else (id(resident.body), resident.key)


def adapted_places(residents: Sequence[Resident | None], unfused: range) -> list[LayerPlace]:
    """Return where any of the residents adds something, in the model's order."""
    layouts = {each.body for each in residents if each is not None}
    found = {place for layout in layouts for place, _ in _ops(layout, unfused)}
    return sorted(found, key=lambda place: (place[0], str(place[1])))


def _layout_runs(residents: Sequence[Resident | None]) -> list[tuple[slice, BodyLayout, list[Resident]]]:
    runs = []
    row = 0
    for layout, group in itertools.groupby(residents, lambda each: each.body if each is not None else None):
        rows = list(group)
        if layout is not None and layout.rows:
            members = [each for each in rows if each is not None]
            runs.append((slice(row, row + len(rows)), layout, members))
        row += len(rows)
    return runs


def _adapter_spans(members: Sequence[Resident]) -> tuple[slice, ...]:
    """Return the consecutive rows of each adapter."""
    spans, start = [], 0
    for _, group in itertools.groupby(members, lambda each: each.key):
        stop = start + sum(1 for _ in group)
        spans.append(slice(start, stop))
        start = stop
    return tuple(spans)


def _pad_rows(rows: slice, body_rows: NDArray[np.int64], batch: int) -> tuple[slice, NDArray[np.int64]]:
    """Extend the group to neighbours that read the arena's zero row, which adds nothing to them.

    oneDNN prepares itself for every new shape of a batched product, which takes longer than the product. So groups
    have 1, 2, 3, 4, 6, 8, 12, 16, ... rows only.
    """
    count = len(body_rows)
    power = 1 << (count - 1).bit_length()
    size = 3 * power // 4 if count <= 3 * power // 4 else power
    if size == count or size > batch:
        return rows, body_rows
    start = min(rows.start, batch - size)
    padded = np.zeros((size, body_rows.shape[1]), np.int64)
    padded[rows.start - start : rows.start - start + count] = body_rows
    return slice(start, start + size), padded


@functools.lru_cache(maxsize=4096)
def _ops(layout: BodyLayout, unfused: range) -> tuple[tuple[LayerPlace, AdapterOp], ...]:
    """Return everything that a layout adds, place by place."""
    ops: list[tuple[LayerPlace, AdapterOp]] = []
    for layer in sorted({layer for layer, _ in [*layout.lora, *layout.bottleneck]}):
        for sites in _UNFUSED if layer in unfused else _FUSED:
            loras = tuple(
                (index, layout.lora[layer, site]) for index, site in enumerate(sites) if (layer, site) in layout.lora
            )
            if loras:
                down = np.concatenate([_range(span.a) for _, span in loras])
                ops.append(((layer, sites), AdapterOp((down, *(_range(span.b) for _, span in loras)), loras, None)))
        for place in Placement:
            span = layout.bottleneck.get((layer, place))
            if span is not None:
                up = np.concatenate([_range(span.up), _range(span.up_bias)])
                matrices = (_range(span.down), _range(span.down_bias), up)
                ops.append(((layer, place), AdapterOp(matrices, (), span)))
    return tuple(ops)


def _range(rows: slice) -> NDArray[np.int64]:
    return np.arange(rows.start, rows.stop)
