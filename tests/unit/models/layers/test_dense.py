"""Packed weights against torch's own linear layer."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hmi.models.layers import ACTIVATIONS, Dense, make_dense
from hmi.models.layers import dense as dense_layers

DTYPES = [torch.float32, torch.bfloat16]
# The packed form of a dtype exists where this processor and this build of torch have its operators.
FORMS = [(dtype, "plain") for dtype in DTYPES]
FORMS += [(dtype, "packed") for dtype in DTYPES if dense_layers._can_pack(dtype)]
SHAPES = [(32, 96), (80, 32), (31, 17), (384, 384)]
ROWS = [1, 7, 64, 333]
# A product in bfloat16 is rounded to 2^-8 of its value, once in the packed form, once for each step in the plain one.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def _tensors(shape: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    inputs, outputs = shape
    weight = torch.randn(outputs, inputs, generator=generator) * inputs**-0.5
    return weight.to(dtype), torch.randn(outputs, generator=generator).to(dtype)


def _inputs(rows: int, width: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _make(form: str, weight: Tensor, bias: Tensor, monkeypatch: pytest.MonkeyPatch) -> Dense:
    monkeypatch.setattr(dense_layers, "_can_pack", lambda dtype: form == "packed")
    made = make_dense(weight, bias)
    assert isinstance(made, dense_layers._PackedDense if form == "packed" else dense_layers._PlainDense)
    return made


def _assert_near(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """`expected` is in float32."""
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("dtype", "form"), FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_form_is_the_linear_layer_with_activation_or_residual(
    shape: tuple[int, int], dtype: torch.dtype, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, bias = _tensors(shape, dtype)
    dense = _make(form, weight, bias, monkeypatch)
    for rows in ROWS:
        x, residual = _inputs(rows, shape[0], dtype), _inputs(rows, shape[1], dtype, seed=1)
        y = F.linear(x.float(), weight.float(), bias.float())
        _assert_near(dense(x), y, dtype)
        _assert_near(dense.plus(x, residual), y + residual.float(), dtype)
        for name, activation in ACTIVATIONS.items():
            _assert_near(dense.activated(x, name), activation(y), dtype)


@pytest.mark.parametrize(("dtype", "form"), FORMS)
def test_inputs_are_not_written_to(form: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the result is written to: adapters are added to it in place."""
    weight, bias = _tensors((32, 32), dtype)
    dense = _make(form, weight, bias, monkeypatch)
    x, residual = _inputs(5, 32, dtype), _inputs(5, 32, dtype, seed=1)
    given = [x.clone(), residual.clone(), weight.clone(), bias.clone()]
    dense(x).fill_(9)
    dense.activated(x, "gelu").fill_(9)
    dense.plus(x, residual).fill_(9)
    again = dense.plus(x, residual)
    for before, after in zip(given, [x, residual, weight, bias], strict=True):
        assert torch.equal(before, after)
    _assert_near(again, F.linear(x.float(), weight.float(), bias.float()) + residual.float(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_view_of_weights_can_be_packed(dtype: torch.dtype) -> None:
    weight, bias = _tensors((32, 64), dtype)
    x = _inputs(9, 32, dtype)
    found = make_dense(weight.t().contiguous().t()[::2], bias[::2])(x)
    _assert_near(found, F.linear(x.float(), weight[::2].float(), bias[::2].float()), dtype)


def test_weights_are_packed_where_the_processor_does_bfloat16() -> None:
    """Otherwise every comparison above would compare the plain form with itself."""
    does_bfloat16 = torch._C._has_mkldnn and "AVX512" in torch.backends.cpu.get_cpu_capability()
    assert not does_bfloat16 or all(dense_layers._can_pack(dtype) for dtype in DTYPES)


def test_other_dtypes_are_not_packed() -> None:
    weight, bias = _tensors((32, 32), torch.float64)
    assert isinstance(make_dense(weight, bias), dense_layers._PlainDense)
    assert isinstance(make_dense(weight.half(), bias.half()), dense_layers._PlainDense)


def _refuse(*_: object) -> None:
    raise RuntimeError("this build has no such operator")


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("__init__", _refuse),
        ("__call__", lambda self, x: torch.zeros_like(x)),
        ("activated", lambda self, x, activation: x),
        ("plus", lambda self, x, residual: residual),
    ],
    ids=["missing", "wrong product", "wrong activation", "wrong sum"],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_plain_form_is_used_when_the_operators_are_missing_or_wrong(
    name: str, replacement: object, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_layers._PackedDense, name, replacement)
    assert not dense_layers._can_pack.__wrapped__(dtype)


def test_every_fused_activation_is_supported_by_models() -> None:
    assert set(dense_layers._FUSED) <= set(ACTIVATIONS)
    x = torch.linspace(-6, 6, 1001)
    for one, other in itertools.combinations(set(ACTIVATIONS) - {"gelu_pytorch_tanh"}, 2):
        assert not torch.equal(ACTIVATIONS[one](x), ACTIVATIONS[other](x))
