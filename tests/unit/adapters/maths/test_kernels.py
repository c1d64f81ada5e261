"""The Triton kernels in Triton's interpreter on the CPU, and through its compiler as far as that goes without a GPU."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hmi.adapters import Activation
from hmi.adapters.maths import apply_segmented, kernels_run_on
from tests.kernel_cases import BottleneckCase, LoraCase, check_bottleneck, check_lora

Interpreter = Callable[..., Any]


@pytest.fixture(scope="module")
def interpreted() -> Iterator[Interpreter]:
    """Calls a function in a process where Triton interprets, which is decided when it is imported."""
    with (
        pytest.MonkeyPatch.context() as patch,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        patch.setenv("TRITON_INTERPRET", "1")
        assert pool.submit(kernels_run_on, torch.device("cpu")).result()
        patch.undo()
        yield lambda function, *args: pool.submit(function, *args).result()


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(LoraCase(48, 48, 48, 37, ((1, 0, 17, 64, 4, 33),), strided=True), id="ranks-mixed-with-0"),
        pytest.param(LoraCase(48, 48, 192, 5, ((3, 0, 16),)), id="fc1"),
        pytest.param(LoraCase(48, 192, 48, 5, ((3, 0, 20),), index_dtype="int32"), id="fc2"),
        pytest.param(LoraCase(48, 80, 112, 20, ((3, 20),), strided=True), id="matrices-padded-to-rows"),
        pytest.param(LoraCase(384, 384, 384, 18, ((8, 24),)), id="384"),
        pytest.param(LoraCase(64, 64, 64, 17, ((4, 0, 9), (0, 0, 0), (16, 32, 0)), strided=True), id="qkv-in-one"),
        pytest.param(LoraCase(16, 16, 16, 1, ((0, 0),)), id="no row"),
        pytest.param(LoraCase(32, 32, 32, 9, ((300, 2, 128),)), id="ranks-over-the-largest-block"),
        pytest.param(LoraCase(48, 48, 48, 37, ((8, 0, 48),), dtype="bfloat16", strided=True), id="bfloat16"),
        pytest.param(LoraCase(48, 48, 48, 70, ((8, 64),), dtype="float16"), id="float16"),
    ],
)
def test_lora_equals_a_loop_over_rows(case: LoraCase, interpreted: Interpreter) -> None:
    interpreted(check_lora, case)


@pytest.mark.parametrize("activation", Activation)
def test_bottleneck_equals_a_loop_over_rows(activation: Activation, interpreted: Interpreter) -> None:
    interpreted(check_bottleneck, BottleneckCase(48, 19, (16, 0, 1, 64), activation))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(BottleneckCase(16, 5, (48, 7), Activation.GELU), id="bias-longer-than-a-row"),
        pytest.param(BottleneckCase(32, 5, (150, 3), Activation.RELU), id="rank-over-the-largest-block"),
        pytest.param(BottleneckCase(48, 33, (48, 0, 16), Activation.RELU, dtype="bfloat16"), id="bfloat16"),
    ],
)
def test_bottleneck_equals_a_loop_over_rows_when(case: BottleneckCase, interpreted: Interpreter) -> None:
    interpreted(check_bottleneck, case)


@settings(max_examples=15, deadline=None)
@given(
    width=st.sampled_from([16, 24, 48]),
    tokens=st.integers(1, 40),
    ranks=st.lists(st.integers(0, 64), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_any_shape_equals_a_loop_over_rows(
    width: int, tokens: int, ranks: list[int], seed: int, interpreted: Interpreter
) -> None:
    interpreted(check_lora, LoraCase(width, width, width, tokens, (tuple(ranks),), seed=seed))


def test_kernels_are_not_offered_when_the_device_or_triton_is_missing() -> None:
    assert not kernels_run_on(torch.device("cpu"))
    assert not kernels_run_on(torch.device("meta"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.zeros(2, 4, 16)}, "do not fit"),
        ({"offsets": torch.zeros(1, 4, 2, dtype=torch.int64)}, "offsets"),
        ({"x": torch.zeros(2, 16, 3).transpose(1, 2)}, "last dimension"),
        ({"arena": torch.zeros(16, 5).t()}, "contiguous"),
        ({"arena": torch.zeros(5, 16, dtype=torch.bfloat16)}, "dtype"),
    ],
)
def test_tensors_are_refused_when_they_do_not_fit(change: dict[str, torch.Tensor], message: str) -> None:
    tensors = {
        "y": torch.zeros(2, 3, 16),
        "x": torch.zeros(2, 3, 16),
        "arena": torch.zeros(5, 16),
        "ranks": torch.ones(1, 2, dtype=torch.int64),
        "offsets": torch.zeros(1, 2, 2, dtype=torch.int64),
        "index": torch.zeros(5, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match=message):
        apply_segmented(**{**tensors, **change}, max_rank=1)  # type: ignore[arg-type]
