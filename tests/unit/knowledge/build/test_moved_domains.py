"""What aliases are worth after domains were moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge import Function, Keys, functions_of
from hmi.knowledge.build import verify_sample
from hmi.knowledge.plan import PreviousTree
from hmi.spec import RowDtype
from tests.unit.knowledge.builds import Builder
from tests.unit.knowledge.tables import FUNCTION, rows_of

# The same delta lies on `stories` and `letters`; only one of their ancestors holds the n-gram.
BEFORE = {
    "general": None,
    "books": "general",
    "post": "general",
    "stories": "books",
    "letters": "post",
    "poems": "stories",
}
AFTER = BEFORE | {"poems": "letters"}
DELTAS = {"stories": "d1", "letters": "d1", "poems": "d2"}
SHIFT = {None: 0.0, "d1": 0.04, "d2": -0.03}


def shifted_rows(function: Function, keys: Keys) -> NDArray[np.float32]:
    """A delta makes a row longer or shorter: `d1` and `d2` are near the base's, and far from each other."""
    return rows_of(keys) * np.float32(1 + SHIFT[function.delta])


def test_aliases_of_a_domain_that_was_moved_are_compared_anew(tmp_path: Path) -> None:
    before, after = (
        Builder(
            parents=parents,
            functions=functions_of(FUNCTION, parents, DELTAS),
            row_dtype=RowDtype.FLOAT16,
            tolerance=0.05,
        )
        for parents in (BEFORE, AFTER)
    )
    tables = {"books": [7], "stories": [7], "letters": [7], "poems": [7]}
    first = before.plan_of(**tables)
    before.build(tmp_path / "1", first, shifted_rows)
    tree = before.open(tmp_path / "1", first)
    assert [tree.tables[name].meta.aliases for name in ("stories", "letters", "poems")] == [1, 0, 1]
    verify_sample(tree, before.functions, shifted_rows, 9, tolerance=0.05, noise=0.001)

    moved = after.open(tmp_path / "1", first)  # served so until the next build
    second = after.plan_of(**tables)
    old = PreviousTree.read(moved, tolerance=0.05, built_tolerance=0.05, built_parents=BEFORE)
    after.build(tmp_path / "2", second, shifted_rows, old)
    verify_sample(after.open(tmp_path / "2", second), after.functions, shifted_rows, 9, tolerance=0.05, noise=0.001)
    assert old.held["stories"].sources.keys() == {FUNCTION}  # nothing moved above it
