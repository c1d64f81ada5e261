"""TODO"""

from __future__ import annotations

from hmi.knowledge.functions import Function, functions_of
from hmi.knowledge.hierarchy import Parents, lines_of
from hmi.knowledge.keysets import NO_KEYS, holds, union
from hmi.knowledge.ngrams import (
    BACKOFF,
    Keys,
    pack,
    token_keys,
    unigram,
    unigrams,
    unpack,
    window_keys,
    without_next,
    without_prev,
)

__all__ = [
    "BACKOFF",
    "NO_KEYS",
    "Function",
    "Keys",
    "Parents",
    "functions_of",
    "holds",
    "lines_of",
    "pack",
    "token_keys",
    "unigram",
    "unigrams",
    "union",
    "unpack",
    "window_keys",
    "without_next",
    "without_prev",
]
