"""Counts that fade with time, in a form that never has to be rewritten.

Forward decay (Cormode, Shkapenyuk, Srivastava and Xu, "Forward decay", ICDE 2009): a count at time t weighs
count * 2^((t - landmark) / half life), so that rows written at different times compare as they stand. What is
stored is the natural logarithm of that, which no age makes too large, so the landmark never moves for it.

The exponent is a clock in half-lives. When the half-life is set anew, the landmark becomes the moment from which
the new clock would have come to where the old one stands: both agree on now, and no row is touched.
"""

from __future__ import annotations

import math
import sqlite3
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOG_ADD", "Clock", "add_sqlite_functions"]

_LN2 = math.log(2.0)
LOG_ADD = {
    "sqlite": "hmi_log_add({0}.log_weight, {1}.log_weight)",
    # Below e^-50 it adds nothing to a float; below e^-745 exp() is an error.
    "postgresql": "greatest({0}.log_weight, {1}.log_weight)"
    " + ln(1 + exp(greatest(-abs({0}.log_weight - {1}.log_weight), -50)))",
}
"""SQL for the logarithm of the sum of two rows' weights, by dialect."""


class Clock(NamedTuple):
    """`landmark` in Unix seconds, by the database's clock; `half_life` in seconds."""

    landmark: float
    half_life: float

    def logarithm(self, at: float) -> float:
        """Of the weight that one count at `at` (Unix seconds) is stored with."""
        return (at - self.landmark) / self.half_life * _LN2

    def counts(self, log_weights: NDArray[np.float64], at: float) -> NDArray[np.float64]:
        """What is left at `at` of stored weights."""
        counts: NDArray[np.float64] = np.exp(log_weights - self.logarithm(at))
        return counts

    def changed(self, half_life: float, at: float) -> Clock:
        """The clock that goes on from `at` with another half-life."""
        return Clock(at - half_life * (at - self.landmark) / self.half_life, half_life)


def add_sqlite_functions(connection: sqlite3.Connection) -> None:
    """SQLite's own mathematics is an option of its build."""
    connection.create_function("hmi_log_add", 2, _log_add, deterministic=True)


def _log_add(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))
