"""Segmented adapter kernels for CUDA: rows of different tenants and ranks in one launch, weights read in place.

The weights are rows of the device tier's arena (`hmi.adapters.tiers.device`), in any order; nothing is gathered or
copied before the launch. A row of rank 0 costs a program that reads its rank and ends. Nothing here waits for the
device.

The host prepares integer tensors on the device, once for each batch (those of one launch are all int32 or all int64):

- `index` [any]: arena rows. A matrix of `vectors` vectors of `length` numbers is vectors * ceil(length / width)
  consecutive entries, vector by vector: A [rank, in] unchanged, B as [rank, out] (transposed). A bias is one vector.
  The padding of a vector to whole rows must be zero in the arena.
- `ranks` [sites, batch]: 0 for a row without an adapter at this place.
- `offsets` [sites, matrices, batch]: where in `index` each matrix of the row begins. Not read where the rank is 0.

The first launch of a kind compiles it, which takes seconds. A kind is: widths, dtype, activation, block of tokens
(16, 32 or 64) and block of ranks (`max_rank` raised to 16, 32, 64 or 128). Run a batch of each before serving.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os

import torch
from torch import Tensor

from hmi.adapters import Activation

_LARGEST_RANK_BITS = 7  # a block of 128 ranks by 32 tokens is what registers hold well
_OPTIONS = {"num_warps": 4, "num_stages": 3}


def kernels_run_on(device: torch.device) -> bool:
    """Return whether triton is installed and the device is CUDA, Ampere (8.0) or newer.

    With TRITON_INTERPRET=1 in the environment also on the CPU, slowly, for tests.
    """
    if importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cuda":
        return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and _interpreted()


def apply_segmented(
    y: Tensor,
    x: Tensor,
    arena: Tensor,
    ranks: Tensor,
    offsets: Tensor,
    index: Tensor,
    max_rank: int,
    activation: Activation | None = None,
) -> None:
    """Add each row's LoRA or, with an activation, each row's bottleneck to y, summed in float32.

    LoRA: y[b, :, site] += (x[b] @ A^T) @ B. Sites that read the same x, such as q, k and v, share one launch over their
    fused output. Bottleneck: y[b] += act(x[b] @ A^T + a_bias) @ B + b_bias, with one site. Rows with another activation
    get rank 0 here and a launch of their own.

    Args:
        y: [batch, tokens, sites * out], written in place; the last dimension contiguous, the others of any stride.
            A part of a wider output is a slice of it: `qkv[:, :, :width]` for q alone.
        x: [batch, tokens, in], likewise; must not overlap y.
        arena: [rows, width], contiguous, of the same dtype as y and x: float32, bfloat16 or float16.
        ranks, offsets, index: See the module's docstring. Offsets are of A and B; a bottleneck's also of both biases.
        max_rank: The largest rank, known on the host. Chooses the block; 0 launches nothing.

    Raises `ValueError` for shapes, strides or dtypes that do not fit each other.
    """
    is_biased = activation is not None
    _check(y, x, arena, ranks, offsets, index, matrices=4 if is_biased else 2)
    batch, tokens, inputs = x.shape
    sites = ranks.shape[0]
    if not batch or not tokens or not sites or max_rank < 1:
        return
    blocks = _blocks(arena.shape[1], tokens, max_rank, arena.dtype)
    tiles = -(-tokens // blocks["TOKEN_BLOCK"])
    with torch.cuda.device(y.device) if y.is_cuda else contextlib.nullcontext():  # triton launches on the current one
        _program()[tiles, batch, sites](
            y,
            x,
            arena,
            ranks,
            offsets,
            index,
            batch,
            tokens,
            y.stride(0),
            y.stride(1),
            x.stride(0),
            x.stride(1),
            WIDTH=arena.shape[1],
            IN=inputs,
            OUT=y.shape[2] // sites,
            BIASED=is_biased,
            ACTIVATION=(activation or Activation.IDENTITY).value,
            OPERAND=_operand(arena.dtype),
            **blocks,
            **_OPTIONS,
        )


def _check(
    y: Tensor, x: Tensor, arena: Tensor, ranks: Tensor, offsets: Tensor, index: Tensor, *, matrices: int
) -> None:
    sites, batch = ranks.shape
    if y.shape[:2] != x.shape[:2] or y.shape[0] != batch or y.shape[2] % max(sites, 1):
        raise ValueError(f"y {list(y.shape)} and x {list(x.shape)} do not fit ranks {list(ranks.shape)}")
    if offsets.shape != (sites, matrices, batch):
        raise ValueError(f"offsets {list(offsets.shape)}, expected {[sites, matrices, batch]}")
    if y.stride(2) != 1 or x.stride(2) != 1:
        raise ValueError("the last dimension of y and of x must be contiguous")
    if not (arena.is_contiguous() and ranks.is_contiguous() and offsets.is_contiguous() and index.is_contiguous()):
        raise ValueError("the arena, ranks, offsets and index must be contiguous")
    if not y.dtype == x.dtype == arena.dtype or arena.dtype not in {torch.float32, torch.bfloat16, torch.float16}:
        raise ValueError(f"y is {y.dtype}, x {x.dtype} and the arena {arena.dtype}; expected one floating dtype")


def _blocks(width: int, tokens: int, max_rank: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the block sizes of a program.

    Reasoned, not tuned: many small tiles of tokens hide memory latency, large tiles read the weights less often; 64
    columns of two bytes are one cache line; and compiled for compute capability 8.0 and 9.0 these sizes keep all but a
    few bytes in registers.
    """
    rank_bits = min(max(4, (max_rank - 1).bit_length()), _LARGEST_RANK_BITS)
    narrow = dtype.itemsize == 2
    if tokens <= 16:
        token_block = 16
    else:
        token_block = 64 if tokens > 64 and rank_bits <= 6 and narrow else 32
    whole = max(16, 1 << (width - 1).bit_length())
    return {
        "TOKEN_BLOCK": token_block,
        "IN_BLOCK": min(whole, 64 if narrow else 32),
        "OUT_BLOCK": min(whole, 128 if narrow else 64),
        "RANK_BITS": rank_bits,
    }


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") in {"1", "on", "true"}


@functools.cache
def _program():  # type: ignore[no-untyped-def]
    # Imported here, because a machine without CUDA may lack triton.
    from hmi.adapters.maths import triton_programs  # noqa: PLC0415

    return triton_programs.segmented


@functools.cache
def _operand(dtype: torch.dtype):  # type: ignore[no-untyped-def]
    import triton.language as tl  # noqa: PLC0415

    if _interpreted():
        return tl.float32
    return {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[dtype]
