"""The segmented kernels on a device: `python -m pytest -m gpu tests/gpu`."""

from __future__ import annotations

import pytest
import torch

from hmi.adapters import Activation
from hmi.adapters.maths import apply_segmented, kernels_run_on
from tests.kernel_cases import BottleneckCase, LoraCase, check_bottleneck, check_lora

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

DTYPES = ["float32", "bfloat16", "float16"]
MIXED = (4, 0, 16, 64, 1, 48, 8, 0, 33)


@pytest.fixture(autouse=True)
def _supported() -> None:
    if not kernels_run_on(torch.device("cuda:0")):
        pytest.skip("triton is missing, or the device is older than compute capability 8.0")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 16, 37, 64, 200])
@pytest.mark.parametrize(
    ("width", "inputs", "outputs"),
    [(768, 768, 768), (384, 384, 1536), (384, 1536, 384), (48, 48, 48), (768, 1152, 1152)],
)
def test_lora_equals_a_loop_over_rows(width: int, inputs: int, outputs: int, tokens: int, dtype: str) -> None:
    check_lora(LoraCase(width, inputs, outputs, tokens, (MIXED,), dtype, strided=tokens % 2 == 1), "cuda:0")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
def test_q_k_and_v_equal_a_loop_when_they_are_one_launch(dtype: str, index_dtype: str) -> None:
    ranks = (MIXED, (0,) * len(MIXED), MIXED[::-1])
    check_lora(LoraCase(768, 768, 768, 50, ranks, dtype, index_dtype), "cuda:0")


@pytest.mark.parametrize("dtype", DTYPES)
def test_lora_equals_a_loop_when_ranks_are_over_the_largest_block(dtype: str) -> None:
    check_lora(LoraCase(384, 384, 384, 40, ((300, 2, 128, 129),), dtype), "cuda:0")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("tokens", [9, 64, 100])
def test_bottleneck_equals_a_loop_over_rows(tokens: int, activation: Activation, dtype: str) -> None:
    check_bottleneck(BottleneckCase(768, tokens, MIXED, activation, dtype), "cuda:0")


def test_a_launch_does_not_wait_for_the_device() -> None:
    device = torch.device("cuda:0")
    x, y = torch.randn(2, 4, 20, 64, device=device)
    arena = torch.randn(100, 64, device=device)
    index = torch.arange(100, device=device)
    ranks = torch.full((1, 4), 8, device=device)
    offsets = torch.tensor([[[0, 20, 40, 60], [10, 30, 50, 70]]], device=device)
    apply_segmented(y, x, arena, ranks, offsets, index, 8)  # compiles
    try:
        torch.cuda.set_sync_debug_mode("error")
        apply_segmented(y, x, arena, ranks, offsets, index, 8)
    finally:
        torch.cuda.set_sync_debug_mode("default")
