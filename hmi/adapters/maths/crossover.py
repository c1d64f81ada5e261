"""Which way of applying the adapters of some rows is fastest, as measured by `benchmarks.adapters`."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Method", "choose_method", "saved_bytes"]


class Method(StrEnum):
    """How rows of a batch get their adapters.

    GATHERED: rows of one layout, the weights of every row side by side, and one batched product for each side.
    SEGMENTS: rows of one layout, the weights of every tenant once, and products of its own for each tenant's rows.
    KERNEL: rows of any rank in one launch that reads the weights in place (`hmi.adapters.maths.kernels`).
    """

    GATHERED = "gathered"
    SEGMENTS = "segments"
    KERNEL = "kernel"


# From how many spared bytes on a tenant's own products are worth their fixed cost.
#
#     python -m benchmarks.adapters --rounds 9 [--dtype float32] [--width 384]
#
# On 2 cores with AMX, 64 rows, 140 cases of ranks 4 to 64, 1 to 256 tokens, 1 to 64 tenants. Following this number
# took, on average over the cases and at worst, this multiple of the faster of the two ways:
#
#     width 768, bfloat16   x1.01  x1.7      (the worst: single tokens of two tenants at rank 4, 0.2 ms)
#     width 768, float32    x1.05  x3.2      (the worst: single tokens)
#     width 384, bfloat16   x1.01  x1.4      (ranks 8, 16 and 48)
#
# In bfloat16 and 768 wide that is: one tenant has 51 of the rows at rank 4, 26 at 8, 14 at 16, 6 at 48, 5 at 64.
# The number of tokens moves the crossover little: both ways multiply the same.
_SEGMENTS_FROM_BYTES = {"cpu": 300 * 1024}

# Reasoned, not measured: the gathered way writes and reads again what the kernel reads once, segments cost a launch
# or more for each tenant, and the kernel takes all ranks in one.
_KERNEL_DEVICES = frozenset({"cuda"})


def choose_method(
    device_type: str, rank: int, tokens: int, rows: int, tenants: int, *, row_bytes: int = 1536
) -> Method:
    """The way for `rows` rows of `tokens` tokens that belong to `tenants` distinct adapters of one rank.

    Args:
        device_type: torch's name for it. KERNEL is the answer on CUDA whether or not this machine can run it: where
            `kernels_run_on` says no, take GATHERED.
        rank: All ranks that are computed side by side.
        tokens: Of a row. No rule needs it so far.
        row_bytes: Of one vector of the weights: the arena's width times the size of a number.
    """
    if device_type in _KERNEL_DEVICES:
        return Method.KERNEL
    threshold = _SEGMENTS_FROM_BYTES.get(device_type)
    if threshold is None or saved_bytes(rank, rows, tenants, row_bytes) < threshold:
        return Method.GATHERED
    return Method.SEGMENTS


def saved_bytes(rank: int, rows: int, tenants: int, row_bytes: int) -> int:
    """What each tenant's own products spare: the gathered bytes, for each side, of its second and further rows."""
    return rank * row_bytes * (rows - tenants) // max(tenants, 1)
