"""The bits of tenants in the bitmaps beside n-gram counts: who asked for an n-gram.

Beyond `TENANT_BITS` tenants, several share a bit and count as one, so the number of tenants is never overstated.
"""

from __future__ import annotations

__all__ = ["PUBLIC", "TENANT_BITS", "bitmap_of"]

TENANT_BITS = 62  # with `PUBLIC` they fit a signed 64-bit column

PUBLIC = 1 << TENANT_BITS
"""The bitmap of text that the operator counted, which is no secret."""


def bitmap_of(bit: int) -> int:
    """Return the bitmap of the tenant with this bit."""
    if not 0 <= bit < TENANT_BITS:
        raise ValueError(f"tenants have the bits 0 to {TENANT_BITS - 1}, not {bit}")
    return 1 << bit
