"""How far a build is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CHECK", "COMPUTE", "WRITE", "BuildProgress"]

CHECK = "check"
"""The old version's tables are read and compared with their checksums."""

COMPUTE = "compute"
"""Rows that the old version does not have are computed."""

WRITE = "write"
"""Tables are written."""


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Attributes:
    stage: `check`, `compute` or `write`. Where domains have deltas, the last two take turns, and `compute` learns
        how many rows there are as it goes: its total may grow.
    done, total: In rows.
    """

    stage: str
    done: int
    total: int
