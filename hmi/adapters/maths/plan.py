"""Which rows of a batch are computed together, and where in the arena their weights lie. Made on the host.

Rows whose adapters have one layout lie together, so that a rank of 4 never pays for a neighbour's 64 and what is
read and written of the states are slices. All index arithmetic is done here, while the device runs another batch,
and reaches the device in one copy.
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

__all__ = ["NO_LAYERS", "QKV", "GatheredPlan", "Inputs", "Part", "Step", "Where", "order_key", "places"]

QKV = (Site.Q, Site.K, Site.V)
Inputs = tuple[Site, ...]
"""Sites that read the same states and are computed together."""

Where = tuple[int, Inputs | Placement]
"""A layer and a place in it."""

_APART: tuple[Inputs, ...] = (QKV[:1], QKV[1:], (Site.O,), (Site.FC1,), (Site.GATE,), (Site.FC2,))
_TOGETHER: tuple[Inputs, ...] = (QKV, *_APART[2:])

NO_LAYERS = range(0)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one layout adds at one place: the rows of the layout to read, matrix after matrix.

    Attributes:
        columns: int64, for each matrix which rows of the layout it takes.
        loras: (position among the place's sites, span) of those that have a LoRA; empty for a bottleneck.
        bottleneck: None for LoRAs.
    """

    columns: tuple[NDArray[np.int64], ...]
    loras: tuple[tuple[int, LoraSpan], ...]
    bottleneck: BottleneckSpan | None

    @property
    def rank(self) -> int:
        """All ranks that are computed at once, side by side."""
        return self.bottleneck.rank if self.bottleneck else sum(span.rank for _, span in self.loras)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Consecutive rows of the batch that take one step.

    Attributes:
        rows: Of the batch. Where weights are gathered there may be rows among them that take the arena's zero row.
        spans: The rows of each distinct adapter, counted within `rows`, where each is a product of its own; None
            where every row has its gathered weights in one batched product.
        index: int64, the arena rows of the step's matrices, one matrix after the other:
            [adapters or rows, rows of the matrix], flat.
    """

    step: Step
    layout: BodyLayout
    rows: slice
    spans: tuple[slice, ...] | None
    index: Tensor


def places(residents: Sequence[Resident | None], apart: range) -> list[Where]:
    """Where any of the residents adds something, in the model's order.

    In the layers `apart` q is asked for apart from k and v.
    """
    layouts = {each.body for each in residents if each is not None}
    found = {place for layout in layouts for place, _ in _steps(layout, apart)}
    return sorted(found, key=lambda place: (place[0], str(place[1])))


class GatheredPlan:
    """The parts of one batch, by layer and place.

    Args:
        residents: One for each row of the batch, None for a row without an adapter. Any order is right; rows in the
            order of `order_key` make the fewest parts.
        tokens: Of a row.
        apart: Layers that ask for q apart from k and v: an encoder's last, where it computes q and all that follows
            for first tokens alone; all of a decoder's, whose keys and values are narrower.
        row_bytes: Of the arena.
    """

    def __init__(
        self,
        residents: Sequence[Resident | None],
        tokens: int,
        device: torch.device | str,
        *,
        apart: range = NO_LAYERS,
        row_bytes: int = 1536,
    ) -> None:
        kind = torch.device(device).type
        drafts: list[tuple[Where, Step, BodyLayout, slice, tuple[slice, ...] | None]] = []
        arrays: list[NDArray[np.int64]] = []
        for rows, layout, members in _runs(residents):
            spans = _spans(members)
            firsts = [members[span.start] for span in spans]
            distinct = _stacked(firsts)
            wide, padded = _widened(rows, _stacked(members), len(residents))
            for place, step in _steps(layout, apart):
                method = choose_method(kind, step.rank, tokens, len(members), len(spans), row_bytes=row_bytes)
                by_adapter = method is Method.SEGMENTS
                body_rows = distinct if by_adapter else padded
                drafts.append((place, step, layout, rows if by_adapter else wide, spans if by_adapter else None))
                arrays.append(np.concatenate([body_rows[:, columns].reshape(-1) for columns in step.columns]))
        self.parts: dict[Where, list[Part]] = {}
        if not drafts:
            return
        flat = torch.from_numpy(np.concatenate(arrays)).to(device, non_blocking=True)
        indices = torch.split(flat, [array.size for array in arrays])
        for (place, step, layout, rows, apart_spans), index in zip(drafts, indices, strict=True):
            self.parts.setdefault(place, []).append(Part(step, layout, rows, apart_spans, index))


def order_key(resident: Resident | None) -> tuple[int, str]:
    """Rows sorted by this lie together by layout, and within it by adapter."""
    return (0, "") if resident is None or not resident.body.rows else (id(resident.body), resident.digest)


def _runs(residents: Sequence[Resident | None]) -> list[tuple[slice, BodyLayout, list[Resident]]]:
    """Consecutive rows of one layout."""
    runs = []
    row = 0
    for layout, group in itertools.groupby(residents, lambda each: each.body if each is not None else None):
        rows = list(group)
        if layout is not None and layout.rows:
            members = [each for each in rows if each is not None]
            runs.append((slice(row, row + len(rows)), layout, members))
        row += len(rows)
    return runs


def _spans(members: Sequence[Resident]) -> tuple[slice, ...]:
    """The consecutive rows of each adapter."""
    spans, start = [], 0
    for _, group in itertools.groupby(members, lambda each: each.digest):
        stop = start + sum(1 for _ in group)
        spans.append(slice(start, stop))
        start = stop
    return tuple(spans)


def _stacked(members: Sequence[Resident]) -> NDArray[np.int64]:
    """[n, rows of the layout]"""
    return np.stack([each.body_rows for each in members])


def _widened(rows: slice, body_rows: NDArray[np.int64], batch: int) -> tuple[slice, NDArray[np.int64]]:
    """The rows, and some of their neighbours with the arena's zero row for weights, which add nothing to them.

    A CPU's library prepares itself for every new shape of a batched product, which takes longer than the product. So
    the numbers of rows are 1, 2, 3, 4, 6, 8, 12, 16, ... and no others.
    """
    count = len(body_rows)
    power = 1 << (count - 1).bit_length()
    wanted = 3 * power // 4 if count <= 3 * power // 4 else power
    if wanted == count or wanted > batch:
        return rows, body_rows
    start = min(rows.start, batch - wanted)
    padded = np.zeros((wanted, body_rows.shape[1]), np.int64)
    padded[rows.start - start : rows.start - start + count] = body_rows
    return slice(start, start + wanted), padded


@functools.lru_cache(maxsize=4096)
def _steps(layout: BodyLayout, apart: range) -> tuple[tuple[Where, Step], ...]:
    """Everything that a layout adds, place by place."""
    steps: list[tuple[Where, Step]] = []
    for layer in sorted({layer for layer, _ in [*layout.lora, *layout.bottleneck]}):
        for sites in _APART if layer in apart else _TOGETHER:
            loras = tuple(
                (position, layout.lora[layer, site])
                for position, site in enumerate(sites)
                if (layer, site) in layout.lora
            )
            if loras:
                down = np.concatenate([_range(span.a) for _, span in loras])
                steps.append(((layer, sites), Step((down, *(_range(span.b) for _, span in loras)), loras, None)))
        for place in Placement:
            span = layout.bottleneck.get((layer, place))
            if span is not None:
                up = np.concatenate([_range(span.up), _range(span.up_bias)])
                columns = (_range(span.down), _range(span.down_bias), up)
                steps.append(((layer, place), Step(columns, (), span)))
    return tuple(steps)


def _range(rows: slice) -> NDArray[np.int64]:
    return np.arange(rows.start, rows.stop)
