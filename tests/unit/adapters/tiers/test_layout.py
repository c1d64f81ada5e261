from __future__ import annotations

import numpy as np
import pytest
import torch

from hmi.adapters import Adapter, Array, Transform
from hmi.adapters.tiers import BodyLayout, HeadLayout, Labels, pack_adapter
from hmi.spec import Placement
from tests.adapter_samples import bottleneck_adapter, head, head_adapter, lora_adapter, sample_spec, sixteen_tenants

WIDTH = 32
RNG = np.random.default_rng(2)


def _pack(adapter: Adapter, width: int = WIDTH) -> tuple[BodyLayout, Array]:
    packed = pack_adapter(adapter, width, torch.float32)
    return packed.body, packed.rows.numpy()


def _head_layout(adapter: Adapter) -> HeadLayout:
    layout = pack_adapter(adapter, WIDTH, torch.float32).head
    assert layout is not None
    return layout


def _matrix(rows: Array, span: slice, vectors: int, length: int) -> Array:
    return rows[span].reshape(vectors, -1)[:, :length]


@pytest.mark.parametrize("width", [32, 64, 24])
def test_lora_is_found_in_its_rows_when_widths_are_and_are_not_multiples(width: int) -> None:
    adapter = lora_adapter(RNG, 5, sites=sample_spec().sites)
    layout, rows = _pack(adapter, width)
    assert rows.shape == (layout.rows, width)
    for key, lora in adapter.lora.items():
        span = layout.lora[key]
        np.testing.assert_array_equal(_matrix(rows, span.a, 5, lora.a.shape[1]), lora.a)
        np.testing.assert_array_equal(_matrix(rows, span.b, 5, span.outputs), lora.b.T)


@pytest.mark.parametrize("rank", [1, 8, 33, 80])
def test_bottleneck_is_found_in_its_rows_when_the_rank_passes_the_width(rank: int) -> None:
    adapter = bottleneck_adapter(RNG, rank, places=tuple(Placement))
    layout, rows = _pack(adapter)
    for key, part in adapter.bottleneck.items():
        span = layout.bottleneck[key]
        np.testing.assert_array_equal(_matrix(rows, span.down, rank, WIDTH), part.down)
        np.testing.assert_array_equal(_matrix(rows, span.down_bias, 1, rank)[0], part.down_bias)
        np.testing.assert_array_equal(_matrix(rows, span.up, rank, WIDTH), part.up.T)
        np.testing.assert_array_equal(rows[span.up_bias][0], part.up_bias)


@pytest.mark.parametrize("labels", [2, 32, 70])
def test_head_is_found_behind_the_body_when_it_has_its_own_dense(labels: int) -> None:
    own = head(RNG, labels, transform=Transform.DENSE, own_dense=True)
    adapter = lora_adapter(RNG, head=own)
    layout = _head_layout(adapter)
    body, packed = _pack(adapter)
    rows = packed[body.rows :]
    assert rows.shape == (layout.rows, WIDTH)
    assert layout.dense is not None
    assert layout.dense_bias is not None
    np.testing.assert_array_equal(rows[layout.dense], own.dense)
    np.testing.assert_array_equal(rows[layout.dense_bias][0], own.dense_bias)
    np.testing.assert_array_equal(rows[layout.out], own.out)
    np.testing.assert_array_equal(rows[layout.out_bias].reshape(-1)[:labels], own.out_bias)


def test_rows_tile_without_gap_or_overlap() -> None:
    layout, _ = _pack(lora_adapter(RNG, 3, sites=sample_spec().sites))
    taken = [row for span in layout.lora.values() for part in (span.a, span.b) for row in range(part.start, part.stop)]
    assert sorted(taken) == list(range(layout.rows))


def test_layout_is_one_object_when_shapes_are_equal_and_another_when_not() -> None:
    rank_4, _ = _pack(lora_adapter(RNG, 4))
    assert _pack(lora_adapter(RNG, 4))[0] is rank_4
    assert _pack(lora_adapter(RNG, 8))[0] is not rank_4
    assert _pack(lora_adapter(RNG, 4, spec=sample_spec(k=2)))[0] is not rank_4
    pfeiffer, houlsby = (bottleneck_adapter(RNG, before_norm=flag) for flag in (True, False))
    assert _pack(pfeiffer)[0] is not _pack(houlsby)[0]
    two_labels = _head_layout(head_adapter(head(RNG, 2)))
    assert _head_layout(lora_adapter(RNG, head=head(RNG, 2))) is two_labels
    assert _head_layout(head_adapter(head(RNG, 3))) is not two_labels


def test_head_alone_has_no_body() -> None:
    body, rows = _pack(head_adapter(head(RNG, 3)))
    assert body.rows == 0
    assert rows.shape == (4, WIDTH)


@pytest.mark.parametrize("adapter", sixteen_tenants(sample_spec()))
def test_body_and_head_are_all_the_rows(adapter: Adapter) -> None:
    packed = pack_adapter(adapter, WIDTH, torch.float32)
    assert (packed.head is None) == (adapter.head is None)
    assert len(packed.rows) == packed.body.rows + (packed.head.rows if packed.head else 0)


def test_bytes_are_those_of_the_dtype_it_runs_in() -> None:
    adapter = bottleneck_adapter(RNG, 8, head=head(RNG, 3))
    exact, half = (pack_adapter(adapter, WIDTH, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.rows.dtype == torch.bfloat16
    assert exact.nbytes == 2 * half.nbytes == exact.rows.numel() * 4
    torch.testing.assert_close(half.rows.float(), exact.rows, rtol=2**-8, atol=0)


def test_labels_are_kept_when_there_is_a_head() -> None:
    several = pack_adapter(head_adapter(head(RNG, 2, multi_label=True)), WIDTH, torch.float32)
    assert several.labels == Labels(("label 0", "label 1"), multi_label=True)
    one_of = pack_adapter(head_adapter(head(RNG, 2)), WIDTH, torch.float32)
    assert one_of.labels == Labels(("label 0", "label 1"), multi_label=False)
    headless = pack_adapter(lora_adapter(RNG), WIDTH, torch.float32)
    assert headless.labels is None
    assert headless.head is None


def test_weights_do_not_change_when_the_adapter_does() -> None:
    """What was read from a file may be a view of it."""
    adapter = head_adapter(head(RNG, 3))
    packed = pack_adapter(adapter, WIDTH, torch.float32)
    before = packed.rows.clone()
    assert adapter.head is not None
    adapter.head.out[:] = 7
    assert torch.equal(packed.rows, before)
