from __future__ import annotations

import numpy as np
import pytest
import torch

from hmi.adapters import Adapter
from hmi.adapters.tiers import Labels, pack_adapter
from hmi.adapters.tiers.layout import body_layout, head_layout, pack
from tests.adapter_samples import bottleneck_adapter, head, head_adapter, lora_adapter, sample_spec, sixteen_tenants

WIDTH = 32
RNG = np.random.default_rng(8)


@pytest.mark.parametrize("adapter", sixteen_tenants(sample_spec()))
def test_every_matrix_is_there_with_the_layouts_that_find_it(adapter: Adapter) -> None:
    packed = pack_adapter(adapter, WIDTH, torch.float32)
    np.testing.assert_array_equal(packed.rows.numpy(), pack(adapter, WIDTH))
    assert packed.body is body_layout(adapter, WIDTH)
    assert packed.head is (head_layout(adapter.head, WIDTH) if adapter.head else None)
    assert len(packed.rows) == packed.body.rows + (packed.head.rows if packed.head else 0)


def test_bytes_are_those_of_the_dtype_it_runs_in() -> None:
    adapter = bottleneck_adapter(RNG, 8, head=head(RNG, 3))
    exact, half = (pack_adapter(adapter, WIDTH, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.rows.dtype == torch.bfloat16
    assert exact.nbytes == 2 * half.nbytes == exact.rows.numel() * 4
    torch.testing.assert_close(half.rows.float(), exact.rows, rtol=2**-8, atol=0)


def test_labels_go_along_when_there_is_a_head() -> None:
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
