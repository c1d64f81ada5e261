"""Checking a new version before it serves: a sample of its rows is recomputed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge.build.row_chunks import ComputeRows
from hmi.knowledge.domains import Function
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store import Table, round_trip
from hmi.spec import RowDtype


def verify_sample(
    tree: KnowledgeTree,
    functions: Mapping[str, Function],
    compute: ComputeRows,
    n: int,
    *,
    tolerance: float,
    noise: float = 0.01,
    seed: int = 0,
) -> None:
    """Recompute up to `n` rows and `n` aliases of each table, in one call for each, and compare.

    Args:
        tolerance: The one that the tree was built with.
        noise: How far a row may move between two batches of the model's arithmetic: as a share of its largest value, or
            of its length for an alias. One step of the stored form comes on top.

    Raises `Corrupt`, naming the table and the n-gram, for a row that differs from the computed one, and for an alias
    whose ancestors give no row or one that is too far off.
    """
    random = np.random.default_rng(seed)
    for domain in sorted(tree.tables):
        table = tree.tables[domain]
        _verify_rows(table, functions[domain], compute, _choose(random, len(table.keys), n), noise)
        aliases = table.aliases[_choose(random, len(table.aliases), n)]
        _verify_aliases(tree, table, functions[domain], compute, aliases, tolerance + noise)


def _choose(random: np.random.Generator, entries: int, n: int) -> NDArray[np.int64]:
    return np.sort(random.choice(entries, min(n, entries), replace=False)).astype(np.int64)


def _verify_rows(
    table: Table, function: Function, compute: ComputeRows, index: NDArray[np.int64], noise: float
) -> None:
    if not len(index):
        return
    fresh, stored = compute(function, table.keys[index]), table.read(index)
    peak = np.abs(fresh).max(axis=1)
    step = 1 / 127 if table.meta.row_dtype is RowDtype.INT8 else 2.0**-10
    error = np.abs(fresh - stored).max(axis=1)
    wrong = np.flatnonzero(~(error <= peak * (step + noise)))  # a NaN is wrong too
    if len(wrong):
        at = wrong[0]
        raise Corrupt(
            f"table of {table.meta.domain} ({table.folder}): {len(wrong)} of {len(index)} rows are not what the "
            f"model gives; that of n-gram {int(table.keys[index[at]])} is off by {error[at]:.3g}, "
            f"where values reach {peak[at]:.3g}"
        )


def _verify_aliases(
    tree: KnowledgeTree, table: Table, function: Function, compute: ComputeRows, aliases: Keys, most: float
) -> None:
    if not len(aliases):
        return
    own = round_trip(compute(function, aliases), table.meta.row_dtype)
    found = tree.lookup(table.meta.domain, aliases)
    error = np.linalg.norm(own - found.rows, axis=1)
    wrong = np.flatnonzero(~(found.hit & (error <= most * np.linalg.norm(own, axis=1))))
    if len(wrong):
        at = wrong[0]
        reason = f"differs by {error[at] / np.linalg.norm(own[at]):.3g}" if found.hit[at] else "is not there"
        raise Corrupt(
            f"table of {table.meta.domain} ({table.folder}): {len(wrong)} of {len(aliases)} aliases do not hold; the "
            f"ancestors' row of n-gram {int(aliases[at])} {reason}, where {most:.3g} is allowed"
        )
