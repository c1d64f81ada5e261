from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge.build import BuildReport, build_tree, verify_sample
from hmi.knowledge.builder import TreePlan
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.rows import encode
from hmi.knowledge.table import Table
from hmi.knowledge.tree import KnowledgeTree
from hmi.spec import RowDtype
from tests.unit.knowledge.tables import FUNCTION, HIDDEN, PARENTS, as_keys, make_tree, rows_of

DTYPES = pytest.mark.parametrize("dtype", list(RowDtype))


class Model:
    """Computes rows and keeps what it was asked for; dies on the call of the number given."""

    def __init__(self, *, dies_at: int = -1) -> None:
        self.calls: list[list[int]] = []
        self._dies_at = dies_at

    def __call__(self, keys: Keys) -> NDArray[np.float32]:
        if len(self.calls) == self._dies_at:
            raise RuntimeError("killed")
        self.calls.append(keys.tolist())
        return rows_of(keys)

    @property
    def computed(self) -> list[int]:
        return sorted(key for call in self.calls for key in call)


def plan_of(**tables: list[int]) -> TreePlan:
    return TreePlan(PARENTS, {domain: as_keys(tables.get(domain, [])) for domain in PARENTS})


def build(
    folder: Path,
    plan: TreePlan,
    model: Model,
    old: KnowledgeTree | None = None,
    *,
    dtype: RowDtype = RowDtype.INT8,
    function: str = FUNCTION,
    seen: list[tuple[int, int]] | None = None,
    chunk: int = 2,
) -> BuildReport:
    def progress(done: int, total: int) -> None:
        if seen is not None:
            seen.append((done, total))

    return build_tree(
        folder, plan, old, model, function=function, row_dtype=dtype, hidden_size=HIDDEN, progress=progress, chunk=chunk
    )


def open_tree(folder: Path, plan: TreePlan, number: int = 2, dtype: RowDtype = RowDtype.INT8) -> KnowledgeTree:
    tables = {domain: Table.open(folder / domain) for domain in plan.tables}
    return KnowledgeTree(number, PARENTS, tables, dtype, HIDDEN)


def assert_holds(folder: Path, plan: TreePlan, dtype: RowDtype = RowDtype.INT8) -> None:
    for domain, keys in plan.tables.items():
        table = Table.open(folder / domain)
        table.verify()
        expected = encode(rows_of(keys), dtype)
        np.testing.assert_array_equal(table.keys, keys)
        np.testing.assert_array_equal(table.rows, expected.rows)
        if expected.scales is not None and table.scales is not None:
            np.testing.assert_array_equal(table.scales, expected.scales)


@DTYPES
def test_a_first_build_computes_every_row_once(tmp_path: Path, dtype: RowDtype) -> None:
    plan, model = plan_of(general=[*range(100)], movies=[200, 201, 202]), Model()
    report = build(tmp_path, plan, model, dtype=dtype)
    assert_holds(tmp_path, plan, dtype)
    assert model.computed == [*range(100), 200, 201, 202]
    assert max(len(call) for call in model.calls) == 2
    assert set(report.domains) == set(PARENTS)
    movies = report.domains["movies"]
    assert (movies.entries, movies.copied, movies.computed, movies.added) == (3, 0, 3, 3)
    assert movies.bytes == Table.open(tmp_path / "movies").bytes


@DTYPES
def test_rows_of_the_old_version_are_copied_and_only_new_ones_computed(tmp_path: Path, dtype: RowDtype) -> None:
    held = {"general": as_keys([1, 2, 3]), "reviews": as_keys([10]), "movies": as_keys([20, 21]), "news": as_keys([30])}
    old = make_tree(tmp_path / "old", held, dtype)
    # 3 goes down, 10 stays, 20 goes up to a place where 30 lay in another branch, 21 is dropped.
    plan, model = plan_of(general=[1, 2, 20, 30, 40], reviews=[10], movies=[3, 41]), Model()
    report = build(tmp_path / "new", plan, model, old, dtype=dtype)
    assert_holds(tmp_path / "new", plan, dtype)
    assert model.computed == [40, 41]
    root, movies = report.domains["general"], report.domains["movies"]
    assert (root.entries, root.copied, root.computed) == (5, 4, 1)
    assert (root.added, root.hoisted, root.dropped) == (1, 2, 1)
    assert (movies.added, movies.hoisted, movies.dropped) == (1, 0, 1)


def test_copied_rows_are_those_of_the_old_table_byte_for_byte(tmp_path: Path) -> None:
    # Rows that this model would not give: only copying can bring them.
    old = make_tree(tmp_path / "old", {"movies": as_keys([5, 6])})
    plan = plan_of(movies=[5, 6, 7])

    def other(keys: Keys) -> NDArray[np.float32]:
        return rows_of(keys) + 1

    build_tree(
        tmp_path / "new", plan, old, other, function=FUNCTION, row_dtype=RowDtype.INT8, hidden_size=HIDDEN,
        progress=lambda *_: None,
    )  # fmt: skip
    table = Table.open(tmp_path / "new" / "movies")
    np.testing.assert_array_equal(table.rows[:2], old.tables["movies"].rows)
    np.testing.assert_array_equal(table.rows[2:], encode(other(as_keys([7])), RowDtype.INT8).rows)


def test_an_unchanged_table_is_the_same_artifact(tmp_path: Path) -> None:
    old = make_tree(tmp_path / "old", {"movies": as_keys([5, 6])})
    build(tmp_path / "new", plan_of(movies=[5, 6]), Model(dies_at=0), old)
    for path in (tmp_path / "old" / "movies").iterdir():
        assert (tmp_path / "new" / "movies" / path.name).read_bytes() == path.read_bytes()


def test_nothing_is_copied_when_another_function_made_the_old_rows(tmp_path: Path) -> None:
    old, plan, model = make_tree(tmp_path / "old", {"movies": as_keys([5, 6])}), plan_of(movies=[5, 6]), Model()
    report = build(tmp_path / "new", plan, model, old, function="0" * 64)
    assert model.computed == [5, 6]
    assert report.domains["movies"].copied == 0
    assert Table.open(tmp_path / "new" / "movies").meta.function == "0" * 64


def test_nothing_is_copied_when_the_old_rows_are_of_another_dtype(tmp_path: Path) -> None:
    old, plan, model = make_tree(tmp_path / "old", {"movies": as_keys([5, 6])}), plan_of(movies=[5, 6]), Model()
    build(tmp_path / "new", plan, model, old, dtype=RowDtype.FLOAT16)
    assert model.computed == [5, 6]
    assert_holds(tmp_path / "new", plan, RowDtype.FLOAT16)


def test_nothing_is_copied_when_the_old_rows_were_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = make_tree(tmp_path / "old", {"movies": as_keys([5, 6]), "news": as_keys([8])})
    path = tmp_path / "old" / "movies" / "rows.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    plan, model = plan_of(movies=[5, 6], news=[8]), Model()
    with caplog.at_level(logging.WARNING):
        build(tmp_path / "new", plan, model, old)
    assert model.computed == [5, 6]
    assert_holds(tmp_path / "new", plan)
    assert "rows.npy does not match its checksum" in caplog.text


@pytest.mark.parametrize("dies_at", [0, 1, 2, 20, 30, 51])
def test_a_killed_build_is_taken_up_where_it_stopped(tmp_path: Path, dies_at: int) -> None:
    plan = plan_of(general=[*range(100)], movies=[200, 201, 202])
    with pytest.raises(RuntimeError, match="killed"):
        build(tmp_path, plan, Model(dies_at=dies_at))
    model = Model()
    report = build(tmp_path, plan, model)
    assert_holds(tmp_path, plan)
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []
    assert model.computed == ([200, 201, 202] if dies_at >= 50 else [*range(100), 200, 201, 202])
    assert report.domains["general"].entries == 100


@pytest.mark.parametrize("name", ["keys.npy", "rows.npy", "scales.npy", "table.json"])
def test_a_table_left_damaged_is_written_anew(tmp_path: Path, name: str) -> None:
    plan = plan_of(general=[1, 2, 3])
    build(tmp_path, plan, Model())
    path = tmp_path / "general" / name
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "general" / ".rows.npy.1234.tmp").write_bytes(b"left by a killed process")
    model = Model()
    build(tmp_path, plan, model)
    assert model.computed == [1, 2, 3]
    assert_holds(tmp_path, plan)
    assert not list((tmp_path / "general").glob("*.tmp"))


def test_a_table_of_another_plan_is_written_anew(tmp_path: Path) -> None:
    build(tmp_path, plan_of(general=[1, 2, 3]), Model())
    build(tmp_path, plan_of(general=[1, 2, 4]), Model())
    assert_holds(tmp_path, plan_of(general=[1, 2, 4]))


def test_progress_grows_to_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build(tmp_path, plan_of(general=[*range(100)], movies=[200, 201]), Model(), seen=seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({done for done, _ in seen}) > 3
    assert seen[-1] == (102, 102)
    assert {total for _, total in seen} == {102}


def test_what_progress_raises_ends_the_build(tmp_path: Path) -> None:
    def progress(done: int, total: int) -> None:
        raise InterruptedError("lease lost")

    with pytest.raises(InterruptedError):
        build_tree(
            tmp_path, plan_of(general=[1]), None, Model(), function=FUNCTION, row_dtype=RowDtype.INT8,
            hidden_size=HIDDEN, progress=progress,
        )  # fmt: skip
    assert not (tmp_path / "general" / "table.json").exists()


def test_rows_of_a_wrong_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 9\)"):
        build_tree(
            tmp_path, plan_of(general=[1, 2]), None, lambda keys: np.zeros((len(keys), 9), np.float32),
            function=FUNCTION, row_dtype=RowDtype.INT8, hidden_size=HIDDEN, progress=lambda *_: None,
        )  # fmt: skip


# Verification


@DTYPES
def test_a_sample_agrees_with_the_model_that_built_it(tmp_path: Path, dtype: RowDtype) -> None:
    plan, model = plan_of(general=[*range(100)], movies=[200]), Model()
    build(tmp_path, plan, model, dtype=dtype)
    asked = Model()
    verify_sample(open_tree(tmp_path, plan, dtype=dtype).tables.values(), asked, 10)
    assert sorted(len(call) for call in asked.calls) == [1, 10]
    assert set(asked.computed) <= set(model.computed)


def test_a_sample_allows_for_the_noise_of_arithmetic(tmp_path: Path) -> None:
    plan = plan_of(general=[*range(100)])
    build(tmp_path, plan, Model())
    tables = open_tree(tmp_path, plan).tables.values()
    verify_sample(tables, lambda keys: rows_of(keys) * np.float32(1.005), 100)
    with pytest.raises(Corrupt):
        verify_sample(tables, lambda keys: rows_of(keys) * np.float32(1.005), 100, tolerance=0.0)


@pytest.mark.parametrize("error", [0.1, np.nan])
def test_a_sample_names_the_table_when_one_row_differs(tmp_path: Path, error: float) -> None:
    plan = plan_of(general=[*range(100)], news=[300, 301])
    build(tmp_path, plan, Model())

    def other(keys: Keys) -> NDArray[np.float32]:
        rows = rows_of(keys)
        rows[keys == 301, 3] += error
        return rows

    with pytest.raises(Corrupt, match=r"table of news .*1 of 2 rows .* n-gram 301"):
        verify_sample(open_tree(tmp_path, plan).tables.values(), other, 10)
