"""Trees over the domains, one for each tolerance, from rows that are computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.inheritance.plan import GENERAL
from hmi.engine import Engine
from hmi.knowledge import Function, Keys, unigrams, window_keys
from hmi.knowledge.build import build_tree
from hmi.knowledge.counts import DomainCounts
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.plan import PreviousTree, plan_tree
from hmi.knowledge.store import EncodedRows, Table, decode, encode, entry_bytes
from hmi.spec import HPLMSpec
from hmi.training.lower import encode as encode_texts

__all__ = ["Asked", "Rows", "TreeMaker", "asked_of", "general_asked", "row_error"]

_NODE_BYTES = 2**40  # no budget: what is held is to depend on the tolerance alone


@dataclass(frozen=True, slots=True)
class Asked:
    """The n-grams of some text, ascending, and how often each occurs."""

    keys: Keys
    counts: NDArray[np.float64]


def asked_of(tokenizer: Tokenizer, texts: list[str], max_tokens: int) -> Asked:
    sequences = encode_texts(tokenizer, texts, max_tokens)
    keys = window_keys(np.concatenate(sequences), np.array([len(ids) for ids in sequences]))
    distinct, counts = np.unique(keys, return_counts=True)
    return Asked(distinct, counts.astype(np.float64))


class Rows:
    """Stored rows of n-grams by function, computed once by the engine that will look them up."""

    def __init__(self, engine: Engine, spec: HPLMSpec) -> None:
        self._engine = engine
        self._dtype = spec.row_dtype
        self._known: dict[str, tuple[Keys, EncodedRows]] = {}

    def add(self, function: Function, keys: Keys) -> None:
        """Ascending keys, once for each function."""
        rows = self._engine.compute_rows(function.base, keys, function.delta, fresh=True)
        self._known[function.digest] = keys, encode(rows, self._dtype)

    def __call__(self, function: Function, keys: Keys) -> NDArray[np.float32]:
        """Rows float32 `[n, H]`, as a table gives them back. Raises `KeyError` for one that was not added."""
        known, encoded = self._known[function.digest]
        at = np.searchsorted(known, keys)
        if not (np.take(known, at, mode="clip") == keys).all():
            raise KeyError("rows were asked for that no text has")
        return decode(EncodedRows(encoded.rows[at], None if encoded.scales is None else encoded.scales[at]))


class TreeMaker:
    """Builds trees of the root and the domains under it, which all have deltas of their own."""

    def __init__(self, folder: Path, spec: HPLMSpec, functions: Mapping[str, Function], rows: Rows) -> None:
        self._folder = folder
        self._spec = spec
        self._functions = functions
        self._rows = rows
        self._number = 0

    def make(self, asked: Mapping[str, Asked], tolerance: float) -> KnowledgeTree:
        """What two rebuilds come to: the second knows what the first could mark, and hoists by that."""
        tree: KnowledgeTree | None = None
        for _ in range(2):
            tree = self._rebuild(asked, tree, tolerance)
        if tree is None:
            raise RuntimeError("no rebuild was made")
        return tree

    def _rebuild(self, asked: Mapping[str, Asked], old: KnowledgeTree | None, tolerance: float) -> KnowledgeTree:
        spec = self._spec
        known = PreviousTree.of(old, tolerance=tolerance, old_tolerance=tolerance) if old else PreviousTree.none()
        plan = plan_tree(
            {domain: DomainCounts(each.keys, each.counts) for domain, each in asked.items()},
            {domain: None if domain == GENERAL else GENERAL for domain in self._functions},
            self._functions,
            known.held,
            spec.vocab_size,
            _NODE_BYTES,
            entry_bytes(spec.row_dtype, spec.hidden_size),
        )
        self._number += 1
        folder = self._folder / str(self._number)
        build_tree(
            folder,
            plan,
            known,
            self._rows,
            row_dtype=spec.row_dtype,
            hidden_size=spec.hidden_size,
            tolerance=tolerance,
            progress=lambda progress: None,
        )
        tables = {domain: Table.open(folder / domain) for domain, keys in plan.tables.items() if len(keys)}
        digests = {domain: function.digest for domain, function in plan.functions.items()}
        return KnowledgeTree(self._number, plan.parents, tables, spec.row_dtype, spec.hidden_size, digests)


def general_asked(asked: Mapping[str, Asked], vocabulary: int) -> Asked:
    """All that the domains are asked for, together, and all unigrams."""
    keys = np.concatenate([*(each.keys for each in asked.values()), unigrams(vocabulary)])
    counts = np.concatenate([*(each.counts for each in asked.values()), np.ones(vocabulary)])
    distinct, place = np.unique(keys, return_inverse=True)
    return Asked(distinct, np.bincount(place, counts).astype(np.float64))


def row_error(tree: KnowledgeTree, domain: str, asked: Asked, function: Function, rows: Rows) -> float:
    """Mean over lookups of the relative error of what the tree gives. Raises `RuntimeError` where it gives nothing."""
    found = tree.lookup(domain, asked.keys)
    if not found.hit.all():
        raise RuntimeError(f"{np.count_nonzero(~found.hit)} n-grams of {domain} are not in the tree")
    own = rows(function, asked.keys)
    errors = np.linalg.norm(found.rows - own, axis=1) / np.linalg.norm(own, axis=1)
    return float(np.average(errors, weights=asked.counts))
