"""TODO"""

from __future__ import annotations

from hmi.models.layers.dense import ACTIVATIONS, Dense, filled, make_dense
from hmi.models.layers.estimator import RowEstimator, ServedEstimator
from hmi.models.layers.pages import PAGE_TOKENS, KeyValuePages, PagePart, page_bytes
from hmi.models.layers.rotary import Rotary
from hmi.models.layers.rounding import round_rows

__all__ = [
    "ACTIVATIONS",
    "PAGE_TOKENS",
    "Dense",
    "KeyValuePages",
    "PagePart",
    "Rotary",
    "RowEstimator",
    "ServedEstimator",
    "filled",
    "make_dense",
    "page_bytes",
    "round_rows",
]
