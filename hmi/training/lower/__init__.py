"""TODO"""

from __future__ import annotations

from hmi.training.lower.backoff import TreeOfText, leave_one_out
from hmi.training.lower.states import Breathe, LowerStates, See, encode, estimator_of, in_chunks, window_rows
from hmi.training.lower.windows import WindowBatch, floored, relative_error, states_error

__all__ = [
    "Breathe",
    "LowerStates",
    "See",
    "TreeOfText",
    "WindowBatch",
    "encode",
    "estimator_of",
    "floored",
    "in_chunks",
    "leave_one_out",
    "relative_error",
    "states_error",
    "window_rows",
]
