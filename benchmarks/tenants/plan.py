"""How much is measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hmi.engine import EngineConfig
from hmi.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class TenantsPlan:
    """Attributes:
    tenants: Registered ones, in each case; one tenant alone is always measured beside them.
    slots_shares: Of the working set that the device tier holds.
    sequences: In a job.
    folder: Where adapters' files are kept; None is a temporary one.
    database: URL of an empty database to register in; None is SQLite.
    """

    shape: str
    k: int
    tenants: tuple[int, ...]
    slots_shares: tuple[float, ...]
    sequences: int
    rounds: int
    registrations: int
    folder: Path | None = None
    database: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    host_bytes: int = EngineConfig().host_adapter_bytes

    def with_changes(self, **changes: Any) -> Self:
        """Raises `InvalidInput` where nothing would be measured."""
        changed = dataclasses.replace(self, **changes)
        if changed.rounds < 1 or changed.sequences < 1 or min(changed.tenants, default=0) < 1:
            raise InvalidInput("a run needs at least one round, one sequence and one tenant")
        return changed


FULL = TenantsPlan("base", 6, (100, 1_000, 10_000), (1.0, 0.25, 0.0625), 2_048, 5, 10_000)
QUICK = TenantsPlan("minilm", 3, (100, 1_000), (1.0, 0.25, 0.0625), 384, 2, 1_000)
