"""Finding rows: a knowledge tree, its ancestor chains, the miss cache, and what two versions of a tree hold.

Start with `tree`: `KnowledgeTree` is one immutable version. `ancestors` searches one domain's chain of tables,
or says where a key is found. `diff` compares two versions by their keys alone. `miss_cache` keeps computed rows of
missing windows in host memory until a rebuild takes them into the tree; `cache_index` decides which.
"""

from __future__ import annotations

from hmi.knowledge.lookup.ancestors import KeyLocation, find_holders
from hmi.knowledge.lookup.diff import TreeContents, TreeDiff, WeightedKeys, diff_trees
from hmi.knowledge.lookup.miss_cache import MissCache
from hmi.knowledge.lookup.tree import KnowledgeTree

__all__ = [
    "KeyLocation",
    "KnowledgeTree",
    "MissCache",
    "TreeContents",
    "TreeDiff",
    "WeightedKeys",
    "diff_trees",
    "find_holders",
]
