"""Whose sequences a job holds: draws of tenants by a law of popularity."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Traffic(StrEnum):
    """ZIPF: the n-th most popular tenant is asked for 1/n as often as the first (exponent 1.0)."""

    ZIPF = "zipf"
    UNIFORM = "uniform"


def draw_tenants(traffic: Traffic, tenants: int, count: int, *, seed: int) -> NDArray[np.int64]:
    """`count` numbers below `tenants`. Which of them are popular is left to chance."""
    rng = np.random.default_rng(seed)
    if traffic is Traffic.UNIFORM:
        return rng.integers(tenants, size=count)
    weights = 1 / np.arange(1, tenants + 1)
    drawn: NDArray[np.int64] = rng.permutation(tenants)[rng.choice(tenants, count, p=weights / weights.sum())]
    return drawn
