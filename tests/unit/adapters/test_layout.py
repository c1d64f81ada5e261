from __future__ import annotations

import numpy as np
import pytest

from hmi.adapters import Array, Transform
from hmi.adapters.tiers.layout import body_layout, head_layout, pack
from hmi.spec import Placement
from tests.adapter_samples import bottleneck_adapter, head, head_adapter, lora_adapter, sample_spec

RNG = np.random.default_rng(2)


def _matrix(rows: Array, span: slice, vectors: int, length: int) -> Array:
    return rows[span].reshape(vectors, -1)[:, :length]


@pytest.mark.parametrize("width", [32, 64, 24])
def test_lora_is_found_in_its_rows_when_widths_are_and_are_not_multiples(width: int) -> None:
    adapter = lora_adapter(RNG, 5, sites=sample_spec().sites)
    layout, rows = body_layout(adapter, width), pack(adapter, width)
    assert rows.shape == (layout.rows, width)
    for key, lora in adapter.lora.items():
        span = layout.lora[key]
        np.testing.assert_array_equal(_matrix(rows, span.a, 5, span.inputs), lora.a)
        np.testing.assert_array_equal(_matrix(rows, span.b, 5, span.outputs), lora.b.T)


@pytest.mark.parametrize("rank", [1, 8, 33, 80])
def test_bottleneck_is_found_in_its_rows_when_the_rank_passes_the_width(rank: int) -> None:
    adapter = bottleneck_adapter(RNG, rank, places=tuple(Placement))
    layout, rows = body_layout(adapter, 32), pack(adapter, 32)
    for key, part in adapter.bottleneck.items():
        span = layout.bottleneck[key]
        np.testing.assert_array_equal(_matrix(rows, span.down, rank, 32), part.down)
        np.testing.assert_array_equal(_matrix(rows, span.down_bias, 1, rank)[0], part.down_bias)
        np.testing.assert_array_equal(_matrix(rows, span.up, rank, 32), part.up.T)
        np.testing.assert_array_equal(rows[span.up_bias][0], part.up_bias)


@pytest.mark.parametrize("labels", [2, 32, 70])
def test_head_is_found_behind_the_body_when_it_has_its_own_dense(labels: int) -> None:
    own = head(RNG, labels, transform=Transform.DENSE, own_dense=True)
    adapter = lora_adapter(RNG, head=own)
    layout = head_layout(own, 32)
    rows = pack(adapter, 32)[body_layout(adapter, 32).rows :]
    assert rows.shape == (layout.rows, 32)
    assert layout.dense is not None
    assert layout.dense_bias is not None
    np.testing.assert_array_equal(rows[layout.dense], own.dense)
    np.testing.assert_array_equal(rows[layout.dense_bias][0], own.dense_bias)
    np.testing.assert_array_equal(rows[layout.out], own.out)
    np.testing.assert_array_equal(rows[layout.out_bias].reshape(-1)[:labels], own.out_bias)


def test_rows_tile_without_gap_or_overlap() -> None:
    layout = body_layout(lora_adapter(RNG, 3, sites=sample_spec().sites), 32)
    taken = [row for span in layout.lora.values() for part in (span.a, span.b) for row in range(part.start, part.stop)]
    assert sorted(taken) == list(range(layout.rows))


def test_layout_is_one_object_when_shapes_are_equal_and_another_when_not() -> None:
    assert body_layout(lora_adapter(RNG, 4), 32) is body_layout(lora_adapter(RNG, 4), 32)
    assert body_layout(lora_adapter(RNG, 4), 32) is not body_layout(lora_adapter(RNG, 8), 32)
    upper = lora_adapter(RNG, 4, spec=sample_spec(k=2))
    assert body_layout(upper, 32) is not body_layout(lora_adapter(RNG, 4), 32)
    pfeiffer, houlsby = (bottleneck_adapter(RNG, before_norm=flag) for flag in (True, False))
    assert body_layout(pfeiffer, 32) is not body_layout(houlsby, 32)
    assert head_layout(head(RNG, 2), 32) is not head_layout(head(RNG, 3), 32)


def test_head_alone_has_no_body() -> None:
    adapter = head_adapter(head(RNG, 3))
    assert body_layout(adapter, 32).rows == 0
    assert pack(adapter, 32).shape == (4, 32)
