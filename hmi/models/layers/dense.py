"""The linear layers of serving: fixed weights without gradients, prepared once for the processor that runs them.

On a CPU oneDNN multiplies fastest from weights in its own blocked order. torch's `linear` reorders them at every call;
here that happens once, and activation and residual are added while a result is still in registers. The operators are
those that torch's compiler emits for a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
# oneDNN's names, (attribute, algorithm), of the functions that it computes exactly.
_FUSED = {"gelu": ("gelu", "none"), "relu": ("relu", "")}


class Dense(Protocol):
    """x [n, in] contiguous -> [n, out]."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def activated(self, x: Tensor, activation: str) -> Tensor:
        """The activation of `self(x)`, by its name in `ACTIVATIONS`."""

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """`self(x)` + residual [n, out]."""


class _PlainDense:
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)

    def activated(self, x: Tensor, activation: str) -> Tensor:
        return ACTIVATIONS[activation](self(x))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return self(x).add_(residual)


class _PackedDense:
    _EXPECTED_ROWS = 2048  # oneDNN chooses its blocks for this number; any number of rows can be multiplied

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), self._EXPECTED_ROWS)
        self._bias = bias.contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self._weight, self._bias, "none", [], "")
        return y

    def activated(self, x: Tensor, activation: str) -> Tensor:
        if activation not in _FUSED:
            return ACTIVATIONS[activation](self(x))
        name, algorithm = _FUSED[activation]
        y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self._weight, self._bias, name, [], algorithm)
        return y

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
        return y


def make_dense(weight: Tensor, bias: Tensor | None) -> Dense:
    """Make a linear layer of weight [out, in] and bias [out], in the form that suits their device and dtype."""
    bias = _bias(weight, bias)
    if weight.device.type == "cpu" and _can_pack(weight.dtype):
        return _PackedDense(weight, bias)
    return _PlainDense(weight, bias)


def join_dense(*linears: nn.Linear) -> Dense:
    """Make one linear layer of several that read the same input: [n, in] -> [n, sum of out]."""
    if len(linears) == 1:
        return make_dense(linears[0].weight, linears[0].bias)
    weights, biases = zip(*((each.weight, _bias(each.weight, each.bias)) for each in linears), strict=True)
    return make_dense(torch.cat(weights), torch.cat(biases))


def _bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    return weight.new_zeros(len(weight)) if bias is None else bias


def pad_rows(x: Tensor) -> Tensor:
    """Pad x [n, H] with rows of zeros on a CPU, to one of sixteen steps between two powers of two.

    oneDNN prepares itself for every new n, which takes tens of milliseconds. Padding adds at most 6 %, mostly less.
    """
    count = len(x)
    step = max(8, (1 << (count - 1).bit_length()) // 32)
    missing = -count % step if x.device.type == "cpu" else 0
    return F.pad(x, (0, 0, 0, missing)) if missing else x.contiguous()


@functools.cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Return whether this build of torch has the operators, and their results equal those of `linear`."""
    if not torch._C._has_mkldnn or dtype not in (torch.bfloat16, torch.float32):
        return False
    values = torch.linspace(-1, 1, 32 * 32).to(dtype)
    weight, x, bias = values.view(32, 32), values.flip(0).view(32, 32), values[:32]
    try:
        dense = _PackedDense(weight, bias)
        found = torch.stack([dense(x), dense.activated(x, "gelu"), dense.plus(x, x)])
    except (AttributeError, RuntimeError):
        return False
    y = F.linear(x, weight, bias)
    return torch.allclose(found.float(), torch.stack([y, F.gelu(y), y + x]).float(), atol=0.05, rtol=0.02)
