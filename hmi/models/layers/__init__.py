"""Building blocks that the model families share: dense layers for serving, attention, the paged KV cache, the
estimator of rows that no table holds, and the rounding of rows.
"""

from __future__ import annotations

from hmi.models.layers.attention import Rotary, attend, causal_mask
from hmi.models.layers.dense import ACTIVATIONS, Dense, join_dense, make_dense, pad_rows
from hmi.models.layers.kv_cache import PAGE_TOKENS, PagedKvCache, PageGroup, page_bytes
from hmi.models.layers.rows import RowEstimator, ServedEstimator, round_rows

__all__ = [
    "ACTIVATIONS",
    "PAGE_TOKENS",
    "Dense",
    "PageGroup",
    "PagedKvCache",
    "Rotary",
    "RowEstimator",
    "ServedEstimator",
    "attend",
    "causal_mask",
    "join_dense",
    "make_dense",
    "pad_rows",
    "page_bytes",
    "round_rows",
]
