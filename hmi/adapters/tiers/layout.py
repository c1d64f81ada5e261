"""How an adapter's matrices are packed into rows of one width, so that adapters of any rank share one arena.

A row is as wide as the model's hidden states. `a` [rank, in] takes rank * ceil(in / width) rows, `b` is kept
transposed as [rank, out], and a bias starts a row of its own; vectors are padded with zeros to whole rows. A layout
says which rows of an adapter hold which matrix. Adapters of the same shapes share one layout object, so the rows of a
batch can be grouped by it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hmi.adapters import Activation, Adapter, Array, Head, Pooling
from hmi.spec import Placement, Site


@dataclass(frozen=True, slots=True)
class LoraSpan:
    rank: int
    outputs: int
    a: slice  # [rank, inputs]
    b: slice  # [rank, outputs]


@dataclass(frozen=True, slots=True)
class BottleneckSpan:
    rank: int
    down: slice  # [rank, width]
    down_bias: slice  # [1, rank]
    up: slice  # [rank, width]
    up_bias: slice  # [1, width]


@dataclass(frozen=True, slots=True, eq=False)
class BodyLayout:
    """The rows of an adapter's parts inside the layers. Adapters of equal shapes share one object."""

    lora: Mapping[tuple[int, Site], LoraSpan]
    bottleneck: Mapping[tuple[int, Placement], BottleneckSpan]
    before_norm: bool
    activation: Activation
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class HeadLayout:
    """The rows of a head, counted from the head's first row. Heads of equal shapes share one object."""

    pooling: Pooling
    base_pooler: bool
    activation: Activation
    dense: slice | None  # [width, width]
    dense_bias: slice | None  # [1, width]
    out: slice  # [labels, width]
    out_bias: slice  # [1, labels]
    labels: int
    rows: int


@dataclass(frozen=True, slots=True)
class Labels:
    names: tuple[str, ...]
    multi_label: bool


@dataclass(frozen=True, slots=True, eq=False)
class PackedAdapter:
    """An adapter as the tiers keep it, in the dtype that it runs in."""

    body: BodyLayout
    head: HeadLayout | None
    labels: Labels | None
    rows: Tensor  # [body.rows + head.rows, width], the body's first

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes


def pack_adapter(adapter: Adapter, width: int, dtype: torch.dtype, *, pin: bool = False) -> PackedAdapter:
    """Pack an adapter once. `pin` uses page-locked memory, which a GPU copies from asynchronously."""
    body = _body_layout(
        width,
        tuple((key, lora.rank, lora.a.shape[1], lora.b.shape[0]) for key, lora in sorted(adapter.lora.items())),
        tuple((key, part.rank) for key, part in sorted(adapter.bottleneck.items())),
        adapter.adapter_before_norm,
        adapter.activation,
    )
    packed = np.zeros((body.rows, width), np.float32)
    for site, lora in adapter.lora.items():
        pair = body.lora[site]
        _write(packed[pair.a], lora.a)
        _write(packed[pair.b], lora.b.T)
    for place, part in adapter.bottleneck.items():
        span = body.bottleneck[place]
        _write(packed[span.down], part.down)
        _write(packed[span.down_bias], part.down_bias[None])
        _write(packed[span.up], part.up.T)
        _write(packed[span.up_bias], part.up_bias[None])
    head = labels = None
    if adapter.head is not None:
        head, head_rows = _pack_head(adapter.head, width)
        labels = Labels(adapter.head.labels, adapter.head.multi_label)
        packed = np.concatenate([packed, head_rows])
    rows = torch.from_numpy(packed).to(dtype)
    return PackedAdapter(body, head, labels, rows.pin_memory() if pin else rows)


def _pack_head(head: Head, width: int) -> tuple[HeadLayout, Array]:
    has_dense = head.dense is not None
    layout = _head_layout(
        width, head.pooling, head.uses_base_pooler, head.dense_activation, has_dense, len(head.labels)
    )
    rows = np.zeros((layout.rows, width), np.float32)
    matrices = (
        (layout.dense, head.dense),
        (layout.dense_bias, head.dense_bias),
        (layout.out, head.out),
        (layout.out_bias, head.out_bias),
    )
    for span, matrix in matrices:
        if span is not None and matrix is not None:
            _write(rows[span], np.atleast_2d(matrix))
    return layout, rows


def _write(rows: Array, matrix: Array) -> None:
    # `rows` is a contiguous slice, so the reshape is a view of it.
    rows.reshape(matrix.shape[0], -1)[:, : matrix.shape[1]] = matrix


class _RowCounter:
    """Assigns rows from the first on."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.count = 0

    def take(self, vectors: int, length: int) -> slice:
        """Return the rows for `vectors` vectors of `length` numbers."""
        start = self.count
        self.count += vectors * math.ceil(length / self.width)
        return slice(start, self.count)


@functools.lru_cache(maxsize=4096)
def _body_layout(
    width: int,
    lora: tuple[tuple[tuple[int, Site], int, int, int], ...],
    bottleneck: tuple[tuple[tuple[int, Placement], int], ...],
    before_norm: bool,
    activation: Activation,
) -> BodyLayout:
    rows = _RowCounter(width)
    pairs = {
        key: LoraSpan(rank, outputs, rows.take(rank, inputs), rows.take(rank, outputs))
        for key, rank, inputs, outputs in lora
    }
    parts = {
        key: BottleneckSpan(
            rank, rows.take(rank, width), rows.take(1, rank), rows.take(rank, width), rows.take(1, width)
        )
        for key, rank in bottleneck
    }
    return BodyLayout(pairs, parts, before_norm, activation, rows.count)


@functools.lru_cache(maxsize=4096)
def _head_layout(
    width: int, pooling: Pooling, base_pooler: bool, activation: Activation, has_dense: bool, labels: int
) -> HeadLayout:
    rows = _RowCounter(width)
    dense = rows.take(width, width) if has_dense else None
    dense_bias = rows.take(1, width) if has_dense else None
    out, out_bias = rows.take(labels, width), rows.take(1, labels)
    return HeadLayout(pooling, base_pooler, activation, dense, dense_bias, out, out_bias, labels, rows.count)
