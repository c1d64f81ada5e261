"""What the frozen lower layers give a training: token ids, windows, rows, and rows under the miss policy `backoff`.

`LowerStates` computes the rows of a set of texts once and gives batches of states, as serving would look them up.
`WindowBatch` holds the distinct windows of one batch, for trainings that run the lower layers themselves.
`SimulatedTree` shows each training text as a tree built from the other texts would. Start reading at `states.py`.
"""

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
from hmi.training.lower.windows import WindowBatch, floor_sizes, relative_error, states_error

__all__ = [
    "LowerStates",
    "SimulatedTree",
    "ViewWindows",
    "WindowBatch",
    "YieldHook",
    "encode",
    "estimator_of",
    "floor_sizes",
    "leave_one_out",
    "relative_error",
    "states_error",
    "text_chunks",
    "window_rows",
]
