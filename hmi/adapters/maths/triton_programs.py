"""The Triton program behind `hmi.adapters.maths.kernels`: one launch, every row with its own weights and rank.

A program of the grid owns a tile of tokens of one row of the batch. It keeps act(x @ A^T) of its tile in registers
(shrink) and adds its product with B to y (expand): nothing between the two goes to memory, x is read once, y is read
and written once. Both halves read the adapter's rows in place in the arena.

Builds of torch for CPUs come without triton; the module can be imported there too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:

    def _jit(function: Callable[..., Any]) -> Any:
        return function

else:

    def _jit(function: Callable[..., Any]) -> Any:
        # These differ between batches; specialising on their values would only compile again.
        varying = {"batch", "tokens"} & set(function.__annotations__)
        return triton.jit(function, do_not_specialize=sorted(varying))


@_jit
def segmented(
    y: tl.tensor,
    x: tl.tensor,
    arena: tl.tensor,
    ranks: tl.tensor,
    offsets: tl.tensor,
    index: tl.tensor,
    batch: tl.tensor,
    tokens: tl.tensor,
    y_row: tl.tensor,
    y_token: tl.tensor,
    x_row: tl.tensor,
    x_token: tl.tensor,
    WIDTH: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    BIASED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    OPERAND: tl.constexpr,
    TOKEN_BLOCK: tl.constexpr,
    IN_BLOCK: tl.constexpr,
    OUT_BLOCK: tl.constexpr,
    RANK_BITS: tl.constexpr,
) -> None:
    """y += act(x @ A^T + a_bias) @ B + b_bias. Grid: (tiles of TOKEN_BLOCK tokens, rows of the batch, sites).

    Args:
        y: [batch, tokens, sites * OUT]; x: [batch, tokens, IN]; arena: [rows, WIDTH].
        ranks: [sites, batch]; offsets: [sites, 4 if BIASED else 2, batch], in the order A, B, a_bias, b_bias.
        y_row: Elements from one row of y to the next; y_token, x_row, x_token likewise.
        OPERAND: What tl.dot multiplies. The interpreter has no bfloat16 product and multiplies float32.
        TOKEN_BLOCK: This and the other blocks are powers of two, at least 16.
        RANK_BITS: The largest block of ranks is 2**RANK_BITS; higher ranks loop over it.
    """
    token = tl.program_id(0) * TOKEN_BLOCK + tl.arange(0, TOKEN_BLOCK)
    row = tl.program_id(1)
    site = tl.program_id(2)
    rank = tl.load(ranks + site * batch + row).to(tl.int32)
    y += row.to(tl.int64) * y_row + site * OUT
    x += row.to(tl.int64) * x_row
    offsets += site * (4 if BIASED else 2) * batch + row
    # One copy of the body for each block of ranks, 16, 32, ...: a row runs in the smallest that holds its rank.
    for bits in tl.static_range(4, RANK_BITS + 1):
        fits = rank > (0 if bits == 4 else 2 ** (bits - 1))
        if bits < RANK_BITS:
            fits = fits & (rank <= 2**bits)
        if fits:
            a = index + tl.load(offsets)
            b = index + tl.load(offsets + batch)
            for first in range(0, rank, 2**bits):
                vector = first + tl.arange(0, 2**bits)
                own = vector < rank
                inner = tl.zeros((TOKEN_BLOCK, 2**bits), tl.float32)
                for part in range((IN + WIDTH - 1) // WIDTH):
                    a_rows = tl.load(a + vector * ((IN + WIDTH - 1) // WIDTH) + part, mask=own, other=0).to(tl.int64)
                    for start in range(0, WIDTH, IN_BLOCK):
                        column = start + tl.arange(0, IN_BLOCK)
                        x_block = tl.load(  # [tokens, columns]
                            x + token[:, None] * x_token + (part * WIDTH + column)[None, :],
                            mask=(token < tokens)[:, None] & ((column < WIDTH) & (part * WIDTH + column < IN))[None, :],
                            other=0.0,
                        )
                        a_block = tl.load(  # [columns, ranks]
                            arena + a_rows[None, :] * WIDTH + column[:, None],
                            mask=own[None, :] & (column < WIDTH)[:, None],
                            other=0.0,
                        )
                        inner = tl.dot(x_block.to(OPERAND), a_block.to(OPERAND), inner, input_precision="ieee")
                if BIASED:
                    bias_rows = tl.load(index + tl.load(offsets + 2 * batch) + vector // WIDTH, mask=own, other=0)
                    a_bias = tl.load(arena + bias_rows.to(tl.int64) * WIDTH + vector % WIDTH, mask=own, other=0.0)
                    inner += a_bias.to(tl.float32)[None, :]
                # Positions past the rank hold act(0) = 0. Rounded like the inner states of the gathered form.
                inner = _activate(inner, ACTIVATION).to(arena.dtype.element_ty)
                for part in range((OUT + WIDTH - 1) // WIDTH):
                    b_rows = tl.load(b + vector * ((OUT + WIDTH - 1) // WIDTH) + part, mask=own, other=0).to(tl.int64)
                    for start in range(0, WIDTH, OUT_BLOCK):
                        column = start + tl.arange(0, OUT_BLOCK)
                        there = (column < WIDTH) & (part * WIDTH + column < OUT)
                        b_block = tl.load(  # [ranks, columns]
                            arena + b_rows[:, None] * WIDTH + column[None, :],
                            mask=own[:, None] & there[None, :],
                            other=0.0,
                        )
                        total = tl.dot(inner.to(OPERAND), b_block.to(OPERAND), input_precision="ieee")
                        if BIASED:
                            bias_row = tl.load(index + tl.load(offsets + 3 * batch) + part).to(tl.int64)
                            b_bias = tl.load(arena + bias_row * WIDTH + column, mask=there & (first == 0), other=0.0)
                            total += b_bias.to(tl.float32)[None, :]
                        place = y + token[:, None] * y_token + (part * WIDTH + column)[None, :]
                        present = (token < tokens)[:, None] & there[None, :]
                        total += tl.load(place, mask=present, other=0.0).to(tl.float32)
                        tl.store(place, total.to(y.dtype.element_ty), mask=present)
                tl.debug_barrier()  # the next iteration adds to what this one wrote


@_jit
def _activate(x: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """Names as in `hmi.adapters.weights.Activation`; x is float32."""
    if ACTIVATION == "relu":
        x = tl.maximum(x, 0.0)
    elif ACTIVATION == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "swish":
        x = x * tl.sigmoid(x)
    elif ACTIVATION == "tanh":
        x = 2.0 * tl.sigmoid(2.0 * x) - 1.0
    return x
