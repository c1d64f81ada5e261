"""How much is measured, and which tenants the sequences of a job belong to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hmi.engine import EngineConfig
from hmi.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class TenantsPlan:
    shape: str
    k: int
    tenants: tuple[int, ...]  # registered ones, in each case; one tenant alone is always measured beside them
    slots_shares: tuple[float, ...]  # of the working set that the device tier holds
    sequences: int  # in a job
    rounds: int
    registrations: int
    folder: Path | None = None  # where adapters' files are kept; None is a temporary one
    database: str | None = None  # URL of an empty database to register in; None is SQLite
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


class Traffic(StrEnum):
    """ZIPF: the n-th most popular tenant has 1/n as many sequences as the first (exponent 1.0)."""

    ZIPF = "zipf"
    UNIFORM = "uniform"


def draw_tenants(traffic: Traffic, tenants: int, count: int, *, seed: int) -> NDArray[np.int64]:
    """Draw `count` numbers below `tenants`. Which of them are popular is random."""
    rng = np.random.default_rng(seed)
    if traffic is Traffic.UNIFORM:
        return rng.integers(tenants, size=count)
    weights = 1 / np.arange(1, tenants + 1)
    drawn: NDArray[np.int64] = rng.permutation(tenants)[rng.choice(tenants, count, p=weights / weights.sum())]
    return drawn
