"""Decaying counts, stored in a form that is never rewritten.

Forward decay (Cormode, Shkapenyuk, Srivastava and Xu, "Forward decay", ICDE 2009): a count at time t weighs
count * 2^((t - landmark) / half life), so that rows written at different times are comparable. The
stored value is the natural logarithm, which does not overflow with age, so the landmark never moves.

The exponent is a clock in half-lives. A change of the half-life moves the landmark so that the old and the new clock
agree on the present time; no row is written.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
        """Logarithm of the weight of one count at `at` (Unix seconds)."""
        return (at - self.landmark) / self.half_life * _LN2

    def counts(self, log_weights: NDArray[np.float64], at: float) -> NDArray[np.float64]:
        """Decay stored weights to `at`."""
        counts: NDArray[np.float64] = np.exp(log_weights - self.logarithm(at))
        return counts

    def changed(self, half_life: float, at: float) -> Clock:
        """The clock with another half-life from `at` on."""
        return Clock(at - half_life * (at - self.landmark) / self.half_life, half_life)
