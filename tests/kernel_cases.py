"""Cases for the segmented adapter kernels, and their oracle: a plain loop over rows in float32.

`tests/unit` runs them in Triton's interpreter, `tests/gpu` on a device. A check makes its own tensors out of a
case, so that a case can be sent to another process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hmi.adapters import Activation
from hmi.adapters.maths import apply_segmented
from hmi.adapters.maths.single import activate

__all__ = ["BottleneckCase", "LoraCase", "check_bottleneck", "check_lora"]

# rtol and atol. Float32: sums of up to thousands of products, in another order. The others: the inner states and y are
# each rounded once, by a step of up to 2**-8 (bfloat16; Triton's interpreter cuts off) or 2**-11 (float16), and of
# hundreds of thousands of values the largest are over ten. A value from a wrong row is off by about one.
TOLERANCE = {torch.float32: (2e-5, 2e-5), torch.bfloat16: (1e-2, 1e-1), torch.float16: (2e-3, 1e-2)}


@dataclass(frozen=True, slots=True)
class LoraCase:
    """Sites side by side in one output; `ranks` has a tuple for each site, with one rank for each row."""

    width: int
    inputs: int
    outputs: int
    tokens: int
    ranks: tuple[tuple[int, ...], ...]
    dtype: str = "float32"
    index_dtype: str = "int64"
    strided: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class BottleneckCase:
    width: int
    tokens: int
    ranks: tuple[int, ...]
    activation: Activation
    dtype: str = "float32"
    index_dtype: str = "int64"
    seed: int = 0


class _Arena:
    """Matrices put into rows in random order, as in the device tier, with their index."""

    def __init__(self, width: int, dtype: torch.dtype, generator: torch.Generator) -> None:
        self._width = width
        self._dtype = dtype
        self._generator = generator
        self._rows: list[Tensor] = []
        self._index: list[int] = []

    def put(self, matrix: Tensor) -> tuple[int, Tensor]:
        """Store [vectors, length]; return the offset in the index and the values in the arena's precision."""
        vectors, length = matrix.shape
        parts = -(-length // self._width)
        padded = functional.pad(matrix, (0, parts * self._width - length)).to(self._dtype)
        offset = len(self._index)
        self._index += range(len(self._rows), len(self._rows) + vectors * parts)
        self._rows += padded.view(-1, self._width).unbind()
        return offset, padded[:, :length].float()

    def tensors(self, index_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the arena, which includes rows that must not be read, and the index."""
        count = max(1, len(self._rows))
        place = torch.randperm(3 * count, generator=self._generator)[:count]
        arena = torch.full((3 * count, self._width), torch.nan, dtype=self._dtype)
        if self._rows:
            arena[place] = torch.stack(self._rows)
        return arena, place[torch.tensor(self._index, dtype=torch.int64)].to(index_dtype)


def check_lora(case: LoraCase, device: str = "cpu") -> None:
    """Raises `AssertionError` unless the kernel equals the loop and writes nothing else."""
    generator = torch.Generator().manual_seed(case.seed)
    dtype, index_dtype = getattr(torch, case.dtype), getattr(torch, case.index_dtype)
    sites, batch = len(case.ranks), len(case.ranks[0])
    beside = 16 if case.strided else 0  # columns of a wider tensor that x and y are a part of
    x_whole = torch.randn(case.tokens, batch, case.inputs + beside, generator=generator).to(dtype)
    x_whole = x_whole.transpose(0, 1) if case.strided else x_whole.transpose(0, 1).contiguous()
    x_whole[:, :, case.inputs :] = torch.nan
    x = x_whole[:, :, : case.inputs]
    y_whole = torch.randn(batch, case.tokens, beside + sites * case.outputs, generator=generator).to(dtype)
    y = y_whole[:, :, beside:]
    arena = _Arena(case.width, dtype, generator)
    offsets = torch.full((sites, 2, batch), -(2**30), dtype=index_dtype)  # read at a rank of 0, it would fail
    expected = y.to(torch.float32, copy=True)
    for site, ranks in enumerate(case.ranks):
        for row, rank in enumerate(ranks):
            if rank:
                a_offset, a = arena.put(_matrix(generator, rank, case.inputs, terms=case.inputs))
                b_offset, b = arena.put(_matrix(generator, rank, case.outputs, terms=rank))
                offsets[site, :, row] = torch.tensor([a_offset, b_offset])
                expected[row, :, site * case.outputs :][:, : case.outputs] += x[row].float() @ a.t() @ b
    found = y_whole.to(device, copy=True)
    rows, index = arena.tensors(index_dtype)
    apply_segmented(
        found[:, :, beside:],
        x_whole.to(device)[:, :, : case.inputs],
        rows.to(device),
        torch.tensor(case.ranks, dtype=index_dtype, device=device),
        offsets.to(device),
        index.to(device),
        max(max(ranks) for ranks in case.ranks),
    )
    _compare(found[:, :, beside:], expected)
    assert torch.equal(found[:, :, :beside].cpu(), y_whole[:, :, :beside]), "wrote beside its output"


def check_bottleneck(case: BottleneckCase, device: str = "cpu") -> None:
    """As `check_lora`."""
    generator = torch.Generator().manual_seed(case.seed)
    dtype, index_dtype = getattr(torch, case.dtype), getattr(torch, case.index_dtype)
    batch = len(case.ranks)
    x, y = torch.randn(2, batch, case.tokens, case.width, generator=generator).to(dtype)
    arena = _Arena(case.width, dtype, generator)
    offsets = torch.full((1, 4, batch), -(2**30), dtype=index_dtype)
    expected = y.to(torch.float32, copy=True)
    for row, rank in enumerate(case.ranks):
        if rank:
            matrices = (
                _matrix(generator, rank, case.width, terms=case.width),
                _matrix(generator, rank, case.width, terms=rank),
                _matrix(generator, 1, rank, terms=1),
                _matrix(generator, 1, case.width, terms=1),
            )
            places, (down, up, down_bias, up_bias) = zip(*map(arena.put, matrices), strict=True)
            offsets[0, :, row] = torch.tensor(places)
            inner = activate(case.activation, x[row].float() @ down.t() + down_bias)
            expected[row] += inner @ up + up_bias
    found = y.to(device, copy=True)
    rows, index = arena.tensors(index_dtype)
    apply_segmented(
        found,
        x.to(device),
        rows.to(device),
        torch.tensor([case.ranks], dtype=index_dtype, device=device),
        offsets.to(device),
        index.to(device),
        max(case.ranks),
        case.activation,
    )
    _compare(found, expected)


def _matrix(generator: torch.Generator, vectors: int, length: int, *, terms: int) -> Tensor:
    """Random, scaled so that a sum of `terms` products is about one and a wrong row is detected."""
    return torch.randn(vectors, length, generator=generator) / math.sqrt(terms)


def _compare(found: Tensor, expected: Tensor) -> None:
    rtol, atol = TOLERANCE[found.dtype]
    torch.testing.assert_close(found.cpu().float(), expected, rtol=rtol, atol=atol)
