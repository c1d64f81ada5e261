"""TODO"""

from __future__ import annotations

from hmi.training.lower.backoff import SimulatedTree, leave_one_out
from hmi.training.lower.states import (
    LowerStates,
    ViewWindows,
    YieldHook,
    encode,
    estimator_of,
    text_chunks,
    window_rows,
)
from hmi.training.lower.windows import WindowBatch, floored, relative_error, states_error

__all__ = [
    "LowerStates",
    "SimulatedTree",
    "ViewWindows",
    "WindowBatch",
    "YieldHook",
    "encode",
    "estimator_of",
    "floored",
    "leave_one_out",
    "relative_error",
    "states_error",
    "text_chunks",
    "window_rows",
]
