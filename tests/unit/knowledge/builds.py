"""Versions of small trees, built as a worker does, of rows that depend on function and key alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge import Function, Keys, Parents, functions_of
from hmi.knowledge.build import BuildReport, build_tree
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.plan import BuildProgress, PreviousTree, TreePlan
from hmi.knowledge.store import Table
from hmi.spec import RowDtype
from tests.unit.knowledge.tables import FUNCTION, HIDDEN, PARENTS, rows_of

BASE = Function(FUNCTION)
PLAIN = functions_of(FUNCTION, PARENTS, {})
NEAR, FAR = 0.02, 0.5
"""How much of a row's length a delta moves it by: every other row a little, the others much."""


def function_rows(function: Function, keys: Keys) -> NDArray[np.float32]:
    """What the function's model computes: with a delta, the base's rows moved by `NEAR` or `FAR` of their length."""
    rows = rows_of(keys)
    if function.delta is None:
        return rows
    for place, key in enumerate(keys.tolist()):
        seed = hashlib.sha256(f"{function.delta} {key}".encode()).digest()
        step = np.random.default_rng(list(seed)).standard_normal(HIDDEN).astype(np.float32)
        share = FAR if seed[0] % 2 else NEAR
        rows[place] += step * share * np.linalg.norm(rows[place]) / np.linalg.norm(step)
    return rows


class Model:
    """Computes rows and keeps what it was asked for; dies on the call of the number given."""

    def __init__(self, *, dies_at: int = -1) -> None:
        self.calls: list[tuple[Function, list[int]]] = []
        self._dies_at = dies_at

    def __call__(self, function: Function, keys: Keys) -> NDArray[np.float32]:
        if len(self.calls) == self._dies_at:
            raise RuntimeError("killed")
        self.calls.append((function, keys.tolist()))
        return function_rows(function, keys)

    @property
    def computed(self) -> list[int]:
        return sorted(key for _, call in self.calls for key in call)


@dataclass
class Builder:
    """How the versions of one tree are built."""

    parents: Parents = field(default_factory=lambda: PARENTS)
    functions: Mapping[str, Function] = field(default_factory=lambda: PLAIN)
    row_dtype: RowDtype = RowDtype.INT8
    tolerance: float = 0.0
    chunk: int = 2

    def build(
        self,
        folder: Path,
        plan: TreePlan,
        compute: Callable[[Function, Keys], NDArray[np.float32]] | None = None,
        old: KnowledgeTree | PreviousTree | None = None,
        progress: Callable[[BuildProgress], None] = lambda _: None,
    ) -> BuildReport:
        return build_tree(
            folder,
            plan,
            old if isinstance(old, PreviousTree) else self.old(old),
            compute or Model(),
            row_dtype=self.row_dtype,
            hidden_size=HIDDEN,
            tolerance=self.tolerance,
            progress=progress,
            chunk=self.chunk,
        )

    def old(self, tree: KnowledgeTree | None, plan: TreePlan | None = None) -> PreviousTree:
        shares = plan.alias_shares if plan else {}
        return PreviousTree.read(tree, tolerance=self.tolerance, built_tolerance=self.tolerance, alias_shares=shares)

    def open(self, folder: Path, plan: TreePlan, number: int = 2) -> KnowledgeTree:
        tables = {domain: Table.open(folder / domain) for domain, keys in plan.tables.items() if len(keys)}
        digests = {domain: function.digest for domain, function in self.functions.items()}
        return KnowledgeTree(number, self.parents, tables, self.row_dtype, HIDDEN, digests)

    def plan_of(self, **tables: list[int]) -> TreePlan:
        """A plan by hand."""
        keys = {domain: np.array(sorted(tables.get(domain, [])), np.uint64) for domain in self.parents}
        return TreePlan(self.parents, self.functions, keys)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every table's files, chunks left out."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".chunks" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}
