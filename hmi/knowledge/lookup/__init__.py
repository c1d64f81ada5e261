"""TODO"""

from __future__ import annotations

from hmi.knowledge.lookup.diff import DomainDiff, Holdings, Weighed, compare
from hmi.knowledge.lookup.function_runs import level_of, segment_of
from hmi.knowledge.lookup.location import KEY_FILES, KeyLocation, find_holders, open_keys
from hmi.knowledge.lookup.miss_cache import MissCache
from hmi.knowledge.lookup.tree import KnowledgeTree

__all__ = [
    "KEY_FILES",
    "DomainDiff",
    "Holdings",
    "KeyLocation",
    "KnowledgeTree",
    "MissCache",
    "Weighed",
    "compare",
    "find_holders",
    "level_of",
    "open_keys",
    "segment_of",
]
