"""How an adapter's matrices lie as rows of one width, so that adapters of any rank share one arena.

Every matrix becomes rows as wide as the model's hidden states: `a` [rank, in] takes rank * in/width
rows, `b` is kept transposed [rank, out], biases fill the row they start. What is no multiple of the width is
padded with zeros. A layout says which rows of an adapter hold which matrix; adapters of the same shapes
share one layout object, so the rows of a batch can be grouped by it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hmi.adapters.adapter import Activation, Adapter, Array, Head, Pooling
from hmi.spec import Placement, Site

__all__ = ["BodyLayout", "BottleneckSpan", "HeadLayout", "LoraSpan", "body_layout", "head_layout", "pack"]


@dataclass(frozen=True, slots=True)
class LoraSpan:
    """Rows of one LoRA pair: `a` is [rank, inputs], `b` [rank, outputs] (transposed)."""

    rank: int
    inputs: int
    outputs: int
    a: slice
    b: slice


@dataclass(frozen=True, slots=True)
class BottleneckSpan:
    """Rows of one bottleneck: `down` is [rank, width], `up` [rank, width] (transposed)."""

    rank: int
    down: slice
    down_bias: slice
    up: slice
    up_bias: slice


@dataclass(frozen=True, slots=True, eq=False)
class BodyLayout:
    """What an adapter adds inside the layers. Equal bodies are one object."""

    lora: Mapping[tuple[int, Site], LoraSpan]
    bottleneck: Mapping[tuple[int, Placement], BottleneckSpan]
    before_norm: bool
    activation: Activation
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class HeadLayout:
    """Rows of a head, counted from the head's first row. Equal heads are one object."""

    pooling: Pooling
    base_pooler: bool
    activation: Activation
    dense: slice | None
    dense_bias: slice | None
    out: slice
    out_bias: slice
    labels: int
    rows: int


class _Rows:
    """Deals out rows from the first on."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.count = 0

    def take(self, vectors: int, length: int) -> slice:
        """Rows for `vectors` vectors of `length` numbers."""
        start = self.count
        self.count += vectors * math.ceil(length / self.width)
        return slice(start, self.count)


def body_layout(adapter: Adapter, width: int) -> BodyLayout:
    """The layout of what the adapter adds inside the layers, in rows of `width` numbers."""
    return _body(
        width,
        tuple((key, lora.rank, lora.a.shape[1], lora.b.shape[0]) for key, lora in sorted(adapter.lora.items())),
        tuple((key, part.rank) for key, part in sorted(adapter.bottleneck.items())),
        adapter.adapter_before_norm,
        adapter.activation,
    )


def head_layout(head: Head, width: int) -> HeadLayout:
    """The layout of a head, in rows of `width` numbers."""
    has_dense = head.dense is not None
    return _head(width, head.pooling, head.uses_base_pooler, head.dense_activation, has_dense, len(head.labels))


def pack(adapter: Adapter, width: int) -> Array:
    """All matrices as rows, float32 [body rows + head rows, width]."""
    body = body_layout(adapter, width)
    head = head_layout(adapter.head, width) if adapter.head is not None else None
    rows = np.zeros((body.rows + (head.rows if head else 0), width), np.float32)
    for site, lora in adapter.lora.items():
        pair = body.lora[site]
        _write(rows[pair.a], lora.a)
        _write(rows[pair.b], lora.b.T)
    for place, part in adapter.bottleneck.items():
        span = body.bottleneck[place]
        _write(rows[span.down], part.down)
        _write(rows[span.down_bias], part.down_bias[None])
        _write(rows[span.up], part.up.T)
        _write(rows[span.up_bias], part.up_bias[None])
    if head is not None and adapter.head is not None:
        own = rows[body.rows :]
        if head.dense is not None and head.dense_bias is not None and adapter.head.dense is not None:
            _write(own[head.dense], adapter.head.dense)
            _write(own[head.dense_bias], np.asarray(adapter.head.dense_bias)[None])
        _write(own[head.out], adapter.head.out)
        _write(own[head.out_bias], adapter.head.out_bias[None])
    return rows


def _write(rows: Array, matrix: Array) -> None:
    # `rows` is a contiguous slice, so the reshape is a view of it.
    rows.reshape(matrix.shape[0], -1)[:, : matrix.shape[1]] = matrix


@functools.lru_cache(maxsize=4096)
def _body(
    width: int,
    lora: tuple[tuple[tuple[int, Site], int, int, int], ...],
    bottleneck: tuple[tuple[tuple[int, Placement], int], ...],
    before_norm: bool,
    activation: Activation,
) -> BodyLayout:
    rows = _Rows(width)
    pairs = {
        key: LoraSpan(rank, inputs, outputs, rows.take(rank, inputs), rows.take(rank, outputs))
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
def _head(
    width: int, pooling: Pooling, base_pooler: bool, activation: Activation, has_dense: bool, labels: int
) -> HeadLayout:
    rows = _Rows(width)
    dense = rows.take(width, width) if has_dense else None
    dense_bias = rows.take(1, width) if has_dense else None
    out, out_bias = rows.take(labels, width), rows.take(1, labels)
    return HeadLayout(pooling, base_pooler, activation, dense, dense_bias, out, out_bias, labels, rows.count)
