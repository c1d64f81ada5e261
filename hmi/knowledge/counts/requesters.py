"""Which tenants asked for an n-gram: a bitmap beside each count.

Every tenant has one of `TENANT_BITS` bits; beyond so many tenants, several share one. Bitmaps of one n-gram are merged
by OR: the result depends neither on the order nor on how often something is merged. Two tenants with one bit count as
one, so the number of tenants is never overstated, and an n-gram is held too late rather than too early.

`PUBLIC` marks text that the operator counted: everybody may know it. A bitmap of 0 is of unknown origin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TENANT_BITS = 62  # with `PUBLIC` they fit a signed 64-bit column
PUBLIC = 1 << TENANT_BITS

Bitmaps = NDArray[np.uint64]


def bitmap_of(bit: int) -> int:
    """Return the bitmap of the tenant with this bit."""
    if not 0 <= bit < TENANT_BITS:
        raise ValueError(f"tenants have the bits 0 to {TENANT_BITS - 1}, not {bit}")
    return 1 << bit


def may_be_held(bitmaps: Bitmaps, min_tenants: int, owner: int = 0) -> NDArray[np.bool_]:
    """Return which n-grams `[n]` are public, or were asked for by `min_tenants` different tenants or by the owner.

    `owner` is the bitmap of the only tenant that can read the table; 0: there are several.
    """
    held: NDArray[np.bool_] = bitmaps & np.uint64(PUBLIC | owner) != 0
    if not owner:
        held |= np.bitwise_count(bitmaps & np.uint64(PUBLIC - 1)) >= max(min_tenants, 1)
    return held
