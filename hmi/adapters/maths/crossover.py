"""The fastest way to apply the adapters of some rows: on a CPU as measured by `benchmarks.adapters`.

The choice for CUDA alone is reasoned and not measured.
"""

from __future__ import annotations

from enum import StrEnum


class Method(StrEnum):
    """How rows of a batch get their adapters."""

    GATHERED = "gathered"  # rows of one layout: one batched product for each side, with the weights of every row
    SEGMENTS = "segments"  # rows of one layout: products for each adapter, with its weights once
    KERNEL = "kernel"  # rows of any rank: one launch that reads the weights in place


# The number of saved bytes from which an adapter's own products are worth their fixed cost.
#
#     python -m benchmarks.adapters --rounds 9 [--dtype float32] [--width 384]
#
# On 2 cores with AMX, 64 rows, 140 cases of ranks 4 to 64, 1 to 256 tokens, 1 to 64 tenants. The time with this
# number, as a multiple of the faster of the two ways, on average over the cases and in the worst case:
#
#     width 768, bfloat16   x1.01  x1.7      (the worst: single tokens of two tenants at rank 4, 0.2 ms)
#     width 768, float32    x1.05  x3.2      (the worst: single tokens)
#     width 384, bfloat16   x1.01  x1.4      (ranks 8, 16 and 48)
#
# In bfloat16 and 768 wide that is: one tenant has 51 of the rows at rank 4, 26 at 8, 14 at 16, 6 at 48, 5 at 64.
# The number of tokens hardly moves the crossover, because both ways multiply the same.
_SEGMENTS_FROM_BYTES = {"cpu": 300 * 1024}

# Not measured: the gathered way writes and reads again what the kernel reads once, segments cost a launch or more for
# each adapter, and the kernel takes all ranks in one.
_KERNEL_DEVICES = frozenset({"cuda"})


def choose_method(device_type: str, rank: int, rows: int, adapters: int, *, row_bytes: int = 1536) -> Method:
    """Choose the way for `rows` rows with `adapters` distinct adapters of one layout.

    On CUDA it is KERNEL; use GATHERED where `kernels_run_on` is False. `rank` is the sum of all ranks that are computed
    side by side, `row_bytes` the size of one vector of the weights: the arena's width times the size of a number.
    """
    if device_type in _KERNEL_DEVICES:
        return Method.KERNEL
    threshold = _SEGMENTS_FROM_BYTES.get(device_type)
    if threshold is None or saved_bytes(rank, rows, adapters, row_bytes) < threshold:
        return Method.GATHERED
    return Method.SEGMENTS


def saved_bytes(rank: int, rows: int, adapters: int, row_bytes: int) -> int:
    """Return the gathered bytes that SEGMENTS saves: for each side, those of an adapter's second and further rows."""
    return rank * row_bytes * (rows - adapters) // max(adapters, 1)
