from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge import Function, Keys, functions_of
from hmi.knowledge.build import row_chunks, verify_sample
from hmi.knowledge.plan import BuildProgress, PreviousTree, TreePlan
from hmi.knowledge.store import Table, encode
from hmi.spec import RowDtype
from tests.unit.knowledge.builds import BASE, FAR, NEAR, PLAIN, Builder, Model, files_of, function_rows
from tests.unit.knowledge.tables import FUNCTION, PARENTS, as_keys, make_tree, rows_of

DTYPES = pytest.mark.parametrize("dtype", list(RowDtype))


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
    builder, model = Builder(row_dtype=dtype), Model()
    plan = builder.plan_of(general=[*range(100)], movies=[100, 101, 102])
    report = builder.build(tmp_path, plan, model)
    assert_holds(tmp_path, plan, dtype)
    assert model.computed == [*range(103)]
    assert {function for function, _ in model.calls} == {BASE}
    assert max(len(call) for _, call in model.calls) == 2
    assert set(report.domains) == set(PARENTS)
    movies = report.domains["movies"]
    assert (movies.entries, movies.aliases, movies.copied, movies.computed, movies.added) == (3, 0, 0, 3, 3)
    assert (movies.bytes, movies.bytes_before) == (Table.open(tmp_path / "movies").bytes, 0)
    assert (report.computed, report.tolerance) == (103, 0.0)


def test_a_row_that_several_domains_hold_is_computed_once(tmp_path: Path) -> None:
    builder, model = Builder(), Model()
    plan = builder.plan_of(movies=[1, 2, 3], news=[2, 3, 4])
    report = builder.build(tmp_path, plan, model)
    assert model.computed == [1, 2, 3, 4]
    assert report.computed == 4
    assert [report.domains[each].computed for each in ("movies", "news")] == [3, 3]
    assert_holds(tmp_path, plan)


@DTYPES
def test_rows_of_the_previous_version_are_copied_and_only_new_ones_computed(tmp_path: Path, dtype: RowDtype) -> None:
    held = {"general": as_keys([1, 2, 3]), "reviews": as_keys([10]), "movies": as_keys([20, 21]), "news": as_keys([30])}
    old = make_tree(tmp_path / "old", held, dtype)
    builder, model = Builder(row_dtype=dtype), Model()
    # 3 goes down, 10 stays, 20 goes up to a place where 30 lay in another branch, 21 is dropped.
    plan = builder.plan_of(general=[1, 2, 20, 30, 40], reviews=[10], movies=[3, 41])
    report = builder.build(tmp_path / "new", plan, model, old)
    assert_holds(tmp_path / "new", plan, dtype)
    assert model.computed == [40, 41]
    root, movies = report.domains["general"], report.domains["movies"]
    assert (root.entries, root.copied, root.computed) == (5, 4, 1)
    assert (root.added, root.hoisted, root.dropped) == (1, 2, 1)
    assert (movies.added, movies.hoisted, movies.dropped) == (1, 0, 1)
    assert movies.bytes_before == old.tables["movies"].bytes


def test_copied_rows_are_those_of_the_previous_table_byte_for_byte(tmp_path: Path) -> None:
    # Rows that this model would not give: only copying can bring them.
    old = make_tree(tmp_path / "old", {"movies": as_keys([5, 6])})
    builder = Builder()
    builder.build(tmp_path / "new", builder.plan_of(movies=[5, 6, 7]), lambda _, keys: rows_of(keys) + 1, old)
    table = Table.open(tmp_path / "new" / "movies")
    np.testing.assert_array_equal(table.rows[:2], old.tables["movies"].rows)
    np.testing.assert_array_equal(table.rows[2:], encode(rows_of(as_keys([7])) + 1, RowDtype.INT8).rows)


def test_an_unchanged_table_is_the_same_artifact(tmp_path: Path) -> None:
    old = make_tree(tmp_path / "old", {"movies": as_keys([5, 6])})
    builder = Builder()
    builder.build(tmp_path / "new", builder.plan_of(movies=[5, 6]), Model(dies_at=0), old)
    for path in (tmp_path / "old" / "movies").iterdir():
        assert (tmp_path / "new" / "movies" / path.name).read_bytes() == path.read_bytes()


def test_nothing_is_copied_when_another_function_computed_the_previous_rows(tmp_path: Path) -> None:
    old = make_tree(tmp_path / "old", {"movies": as_keys([5, 6])})
    builder, model = Builder(functions=functions_of("0" * 64, PARENTS, {})), Model()
    report = builder.build(tmp_path / "new", builder.plan_of(movies=[5, 6]), model, old)
    assert model.computed == [5, 6]
    assert report.domains["movies"].copied == 0
    assert Table.open(tmp_path / "new" / "movies").meta.function == "0" * 64


def test_nothing_is_copied_when_the_previous_rows_are_of_another_dtype(tmp_path: Path) -> None:
    old = make_tree(tmp_path / "old", {"movies": as_keys([5, 6])})
    builder, model = Builder(row_dtype=RowDtype.FLOAT16), Model()
    plan = builder.plan_of(movies=[5, 6])
    builder.build(tmp_path / "new", plan, model, old)
    assert model.computed == [5, 6]
    assert_holds(tmp_path / "new", plan, RowDtype.FLOAT16)


def test_nothing_is_copied_when_the_previous_rows_are_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = make_tree(tmp_path / "old", {"movies": as_keys([5, 6]), "news": as_keys([8])})
    path = tmp_path / "old" / "movies" / "rows.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    builder, model = Builder(), Model()
    plan = builder.plan_of(movies=[5, 6], news=[8])
    with caplog.at_level(logging.WARNING):
        builder.build(tmp_path / "new", plan, model, old)
    assert model.computed == [5, 6]
    assert_holds(tmp_path / "new", plan)
    assert "rows.npy does not match its checksum" in caplog.text


# Builds that are cut short


@pytest.mark.parametrize("dies_at", [0, 1, 2, 20, 30, 51])
def test_a_killed_build_loses_at_most_one_chunk(tmp_path: Path, dies_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_chunks, "ROWS_PER_CHUNK", 10)
    builder, killed, model = Builder(), Model(dies_at=dies_at), Model()
    plan = builder.plan_of(general=[*range(100)], movies=[100, 101, 102])
    with pytest.raises(RuntimeError, match="killed"):
        builder.build(tmp_path, plan, killed)
    report = builder.build(tmp_path, plan, model)
    assert_holds(tmp_path, plan)
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []
    assert sorted({*killed.computed, *model.computed}) == [*range(103)]
    assert len(killed.computed) + len(model.computed) - 103 <= 10
    assert report.computed == 103


def test_chunks_serve_the_next_build_when_its_plan_differs(tmp_path: Path) -> None:
    builder, model = Builder(), Model()
    builder.build(tmp_path, builder.plan_of(general=[1, 2, 3], news=[9]))
    plan = builder.plan_of(general=[0, 2, 4], movies=[9])
    report = builder.build(tmp_path, plan, model)
    assert model.computed == [0, 4]
    assert report.domains["general"].computed == 3  # none of them is the previous version's
    assert_holds(tmp_path, plan)


@pytest.mark.parametrize("name", ["keys.npy", "rows.npy", "scales.npy", "table.json"])
def test_a_damaged_chunk_is_computed_anew(tmp_path: Path, name: str) -> None:
    builder, model = Builder(), Model()
    plan = builder.plan_of(general=[1, 2, 3])
    builder.build(tmp_path, plan)
    (chunk,) = (tmp_path / ".chunks").iterdir()
    path = chunk / name
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / ".chunks" / "stray").write_bytes(b"")
    builder.build(tmp_path, plan, model)
    assert model.computed == [1, 2, 3]
    assert_holds(tmp_path, plan)


@pytest.mark.parametrize(
    "other", [Builder(row_dtype=RowDtype.FLOAT16), Builder(functions=functions_of("0" * 64, PARENTS, {}))]
)
def test_chunks_of_another_kind_are_removed(tmp_path: Path, other: Builder) -> None:
    builder, model = Builder(), Model()
    other.build(tmp_path, other.plan_of(general=[1, 2, 3]))
    builder.build(tmp_path, builder.plan_of(general=[1, 2, 3]), model)
    assert model.computed == [1, 2, 3]
    assert len(list((tmp_path / ".chunks").iterdir())) == 1


def test_a_table_left_by_another_build_is_written_anew(tmp_path: Path) -> None:
    builder = Builder()
    builder.build(tmp_path, builder.plan_of(general=[1, 2, 3]))
    (tmp_path / "general" / ".rows.npy.1234.tmp").write_bytes(b"left by a killed process")
    builder.build(tmp_path, builder.plan_of(general=[1, 2, 4]))
    assert_holds(tmp_path, builder.plan_of(general=[1, 2, 4]))
    assert not list((tmp_path / "general").glob("*.tmp"))


def test_a_build_killed_at_any_step_gives_the_same_result_when_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_chunks, "ROWS_PER_CHUNK", 4)
    builder = Builder(functions=functions_of(FUNCTION, PARENTS, {"reviews": "d1", "news": "d2"}), tolerance=0.1)
    first = builder.plan_of(general=[*range(8)], reviews=[*range(4, 10)], movies=[12], news=[1, 2, 20])
    builder.build(tmp_path / "first", first)
    old = builder.open(tmp_path / "first", first)
    plan = builder.plan_of(general=[*range(3, 12)], reviews=[*range(2, 11)], movies=[12, 13], news=[2, 3, 4, 20])

    class Ended(Exception):
        pass

    steps: list[BuildProgress] = []
    report = builder.build(tmp_path / "whole", plan, old=old, progress=steps.append)
    expected = files_of(tmp_path / "whole")
    assert len(steps) >= 20
    for last in range(len(steps)):
        seen = 0

        def end(_: BuildProgress, last: int = last) -> None:
            nonlocal seen
            if seen == last:
                raise Ended
            seen += 1

        folder = tmp_path / f"ended at {last}"
        with pytest.raises(Ended):
            builder.build(folder, plan, old=old, progress=end)
        assert builder.build(folder, plan, old=old) == report
        assert files_of(folder) == expected


def test_progress_grows_to_the_total(tmp_path: Path) -> None:
    steps: list[BuildProgress] = []
    builder = Builder()
    old = make_tree(tmp_path / "old", {"general": as_keys([1, 2, 3])})
    version = PreviousTree.read(old, tolerance=0, progress=steps.append)
    plan = builder.plan_of(general=[*range(100)], movies=[200, 201])
    builder.build(tmp_path / "new", plan, old=version, progress=steps.append)
    assert list(dict.fromkeys(step.stage for step in steps)) == ["check", "compute", "write"]
    for stage, total in [("check", 3), ("compute", 99), ("write", 102)]:
        done = [step.done for step in steps if step.stage == stage]
        assert done == sorted(done)
        assert done[-1] == total
        assert {step.total for step in steps if step.stage == stage} == {total}
    assert len({step.done for step in steps if step.stage == "compute"}) > 40


def test_an_exception_of_progress_ends_the_build(tmp_path: Path) -> None:
    def progress(_: BuildProgress) -> None:
        raise InterruptedError("lease lost")

    builder = Builder()
    with pytest.raises(InterruptedError):
        builder.build(tmp_path, builder.plan_of(general=[1]), progress=progress)
    assert not (tmp_path / "general" / "table.json").exists()


def test_rows_of_a_wrong_shape_are_refused(tmp_path: Path) -> None:
    builder = Builder()
    with pytest.raises(ValueError, match=r"shape \(2, 9\)"):
        builder.build(tmp_path, builder.plan_of(general=[1, 2]), lambda _, keys: np.zeros((len(keys), 9), np.float32))


def test_an_invalid_tolerance_is_refused(tmp_path: Path) -> None:
    builder = Builder(tolerance=-0.1)
    with pytest.raises(ValueError, match="tolerance"):
        builder.build(tmp_path, builder.plan_of(general=[1]))


# Domains with deltas

DELTA = functions_of(FUNCTION, PARENTS, {"reviews": "d1"})
KEYS = [*range(40)]


def near(function: Function, keys: list[int]) -> list[int]:
    """Those whose rows the delta hardly moves."""
    own, base = function_rows(function, as_keys(keys)), rows_of(as_keys(keys))
    moved = np.linalg.norm(own - base, axis=1) / np.linalg.norm(own, axis=1)
    return [key for key, by in zip(sorted(keys), moved, strict=True) if by < (NEAR + FAR) / 2]


@DTYPES
def test_a_row_close_to_the_ancestors_is_an_alias(tmp_path: Path, dtype: RowDtype) -> None:
    builder, model = Builder(functions=DELTA, tolerance=0.1, row_dtype=dtype), Model()
    plan = builder.plan_of(general=KEYS, reviews=[*KEYS, 50], movies=[60])
    report = builder.build(tmp_path, plan, model)
    table, alike = Table.open(tmp_path / "reviews"), near(DELTA["reviews"], KEYS)
    assert 5 < len(alike) < 35
    assert table.aliases.tolist() == alike
    assert table.keys.tolist() == sorted({*KEYS, 50} - {*alike})
    np.testing.assert_array_equal(table.rows, encode(function_rows(DELTA["reviews"], table.keys), dtype).rows)
    assert (table.meta.function, table.meta.alias_function) == (DELTA["reviews"].digest, FUNCTION)
    reviews = report.domains["reviews"]
    assert (reviews.entries, reviews.aliases) == (41 - len(alike), len(alike))
    assert report.computed == 40 + 42
    found = builder.open(tmp_path, plan).lookup("movies", as_keys([*KEYS, 50, 60, 70]))
    assert found.hit.tolist() == [True] * 42 + [False]


def test_nothing_is_an_alias_when_the_tolerance_is_zero(tmp_path: Path) -> None:
    builder = Builder(functions=DELTA)
    builder.build(tmp_path, builder.plan_of(general=KEYS, reviews=KEYS))
    assert Table.open(tmp_path / "reviews").meta.aliases == 0


def test_aliases_and_rows_that_were_compared_need_no_computing_again(tmp_path: Path) -> None:
    builder, model = Builder(functions=DELTA, tolerance=0.1), Model()
    plan = builder.plan_of(general=KEYS, reviews=KEYS)
    builder.build(tmp_path / "1", plan)
    more = builder.plan_of(general=[*KEYS, 50], reviews=[*KEYS, 50])
    report = builder.build(tmp_path / "2", more, model, builder.open(tmp_path / "1", plan))
    assert model.computed == [50, 50]  # by each function
    assert report.domains["reviews"].copied == len(KEYS) - len(near(DELTA["reviews"], KEYS))
    builder.build(tmp_path / "whole", more)
    assert files_of(tmp_path / "2") == files_of(tmp_path / "whole")


def test_an_alias_is_computed_when_the_ancestors_lost_its_row(tmp_path: Path) -> None:
    builder, model = Builder(functions=DELTA, tolerance=0.1), Model()
    plan = builder.plan_of(general=KEYS, reviews=KEYS)
    builder.build(tmp_path / "1", plan)
    less = builder.plan_of(general=KEYS[20:], reviews=KEYS)
    builder.build(tmp_path / "2", less, model, builder.open(tmp_path / "1", plan))
    assert model.computed == near(DELTA["reviews"], KEYS[:20])
    builder.build(tmp_path / "whole", less)
    assert files_of(tmp_path / "2") == files_of(tmp_path / "whole")


def test_a_previous_row_becomes_an_alias_when_an_ancestor_holds_the_key(tmp_path: Path) -> None:
    builder, model = Builder(functions=DELTA, tolerance=0.1), Model()
    plan = builder.plan_of(reviews=KEYS)
    builder.build(tmp_path / "1", plan)
    more = builder.plan_of(general=KEYS, reviews=KEYS)
    builder.build(tmp_path / "2", more, model, builder.open(tmp_path / "1", plan))
    assert model.calls
    assert {function for function, _ in model.calls} == {BASE}
    assert Table.open(tmp_path / "2" / "reviews").aliases.tolist() == near(DELTA["reviews"], KEYS)


@pytest.mark.parametrize(("before", "after"), [(0.1, 0.01), (0.01, 0.1), (0.1, 0.9), (None, 0.1)])
def test_another_tolerance_applies_to_previous_aliases_too(tmp_path: Path, before: float | None, after: float) -> None:
    plan = Builder().plan_of(general=KEYS, reviews=KEYS)
    old, new = Builder(functions=DELTA, tolerance=before or 0.1), Builder(functions=DELTA, tolerance=after)
    old.build(tmp_path / "1", old.plan_of(**{domain: keys.tolist() for domain, keys in plan.tables.items()}))
    tree = old.open(tmp_path / "1", plan)
    version = PreviousTree.read(tree, tolerance=after, built_tolerance=before)
    plan = new.plan_of(general=KEYS, reviews=KEYS)
    new.build(tmp_path / "2", plan, old=version)
    new.build(tmp_path / "whole", plan)
    assert files_of(tmp_path / "2") == files_of(tmp_path / "whole")


def test_a_delta_of_another_function_computes_all_its_rows_anew(tmp_path: Path) -> None:
    builder, model = Builder(functions=DELTA, tolerance=0.1), Model()
    plan = builder.plan_of(general=KEYS, reviews=KEYS)
    builder.build(tmp_path / "1", plan)
    other = Builder(functions=functions_of(FUNCTION, PARENTS, {"reviews": "d2"}), tolerance=0.1)
    changed = other.plan_of(general=KEYS, reviews=KEYS)
    other.build(tmp_path / "2", changed, model, builder.old(builder.open(tmp_path / "1", plan)))
    assert model.computed == KEYS
    assert Table.open(tmp_path / "2" / "reviews").aliases.tolist() == near(other.functions["reviews"], KEYS)


# Verification


@DTYPES
def test_a_sample_agrees_with_the_model_that_built_it(tmp_path: Path, dtype: RowDtype) -> None:
    builder, model = Builder(row_dtype=dtype), Model()
    plan = builder.plan_of(general=[*range(100)], movies=[200])
    builder.build(tmp_path, plan, model)
    recomputed = Model()
    verify_sample(builder.open(tmp_path, plan), PLAIN, recomputed, 10, tolerance=0)
    assert sorted(len(call) for _, call in recomputed.calls) == [1, 10]
    assert set(recomputed.computed) <= set(model.computed)


def test_a_sample_allows_for_the_noise_of_arithmetic(tmp_path: Path) -> None:
    builder = Builder()
    plan = builder.plan_of(general=[*range(100)])
    builder.build(tmp_path, plan)
    tree = builder.open(tmp_path, plan)
    verify_sample(tree, PLAIN, lambda _, keys: rows_of(keys) * np.float32(1.005), 100, tolerance=0)
    with pytest.raises(Corrupt):
        verify_sample(tree, PLAIN, lambda _, keys: rows_of(keys) * np.float32(1.005), 100, tolerance=0, noise=0.0)


@pytest.mark.parametrize("error", [0.1, np.nan])
def test_a_sample_names_the_table_when_one_row_differs(tmp_path: Path, error: float) -> None:
    builder = Builder()
    plan = builder.plan_of(general=[*range(100)], news=[300, 301])
    builder.build(tmp_path, plan)

    def other(_: Function, keys: Keys) -> NDArray[np.float32]:
        rows = rows_of(keys)
        rows[keys == 301, 3] += error
        return rows

    with pytest.raises(Corrupt, match=r"table of news .*1 of 2 rows .* n-gram 301"):
        verify_sample(builder.open(tmp_path, plan), PLAIN, other, 10, tolerance=0)


def test_a_samples_aliases_are_compared_with_the_tolerance(tmp_path: Path) -> None:
    builder = Builder(functions=DELTA, tolerance=0.1)
    plan = builder.plan_of(general=KEYS, reviews=KEYS)
    builder.build(tmp_path, plan)
    tree, recomputed = builder.open(tmp_path, plan), Model()
    verify_sample(tree, DELTA, recomputed, 100, tolerance=0.1)
    assert recomputed.computed == sorted(KEYS * 2)
    with pytest.raises(Corrupt, match=r"table of reviews .* aliases do not hold; .* differs by 0.0[12]"):
        verify_sample(tree, DELTA, Model(), 100, tolerance=0.0)


def test_a_sample_finds_an_alias_when_the_ancestors_give_no_row(tmp_path: Path) -> None:
    builder = Builder(functions=DELTA, tolerance=0.1)
    plan = builder.plan_of(general=KEYS, reviews=KEYS)
    builder.build(tmp_path, plan)
    without = builder.open(tmp_path, builder.plan_of(reviews=KEYS))
    with pytest.raises(Corrupt, match="is not there"):
        verify_sample(without, DELTA, Model(), 100, tolerance=0.1)
