"""Knowledge trees: rows of the lower layers, computed ahead of time and looked up by n-gram.

A base model's lower `k` layers see a *window* of three tokens. Their output for a token, a *row* (float vector of the
hidden size), depends on the window alone, so it can be stored. A window packs into a uint64 *key* (`ngrams`).

A *domain* has one immutable *table* (`store`): ascending keys and their rows, as memory-mapped arrays. Domains form a
*tree* under one root. A lookup for a domain walks its *ancestor chain*, from the domain up to the root, and takes the
row of the first table that holds the key (`lookup`). Rows are comparable only within one *function*: the base model
plus the nearest *delta* (a LoRA of a domain on the lower layers) on the chain (`domains`). In a domain with a delta, an
*alias* is a key without a row that says: the ancestors' row is close enough, within a tolerance.

For a *miss*, a window that no table holds, the *miss policy* decides. `exact` computes the row and keeps it in the
*miss cache*. `backoff` computes nothing: it takes an estimate, or the row of a shorter n-gram.

Lookups are counted (`counts`). From the counts, `plan` chooses the keys of the next version: those that save most
lookups per byte within each domain's byte *budget*. A key that two or more children request is *hoisted*: stored once
in their parent. *Hysteresis* gives keys that are held already an advantage, so that equals do not alternate. `build`
copies the rows that the previous version has, computes the others, and verifies a sample.

Read `ngrams` first, then `domains`, `store.table`, `lookup.tree`; `plan.planner` and `build.tree_build` for rebuilds.
"""

from __future__ import annotations

from hmi.knowledge.domains import Function, Parents, ancestor_chains, functions_of
from hmi.knowledge.ngrams import (
    BACKOFF,
    NO_KEYS,
    Keys,
    holds,
    pack,
    token_keys,
    unigram,
    unigrams,
    union,
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
    "ancestor_chains",
    "functions_of",
    "holds",
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
