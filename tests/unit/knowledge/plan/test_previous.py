from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from hmi.knowledge import functions_of
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.plan import BuildProgress, PreviousTable, PreviousTree, kept_aliases
from hmi.knowledge.plan.backoff import TYPICAL_BACKOFF
from hmi.spec import RowDtype
from tests.unit.knowledge.builds import Builder, function_rows
from tests.unit.knowledge.tables import FUNCTION, HIDDEN, PARENTS, as_keys, make_tree, rows_of

DELTA = functions_of(FUNCTION, PARENTS, {"reviews": "d1"})
BOTH = functions_of(FUNCTION, PARENTS, {"reviews": "d1", "movies": "d2"})
KEYS = [*range(40)]


def built(folder: Path, builder: Builder, **tables: list[int]) -> KnowledgeTree:
    plan = builder.plan_of(**tables)
    builder.build(folder, plan)
    return builder.open(folder, plan)


@pytest.mark.parametrize("tree", [None, KnowledgeTree(0, PARENTS, {}, RowDtype.INT8, HIDDEN)])
def test_there_is_nothing_to_build_from_before_the_first_version(tree: KnowledgeTree | None) -> None:
    assert PreviousTree.read(tree, tolerance=0.1) == PreviousTree.empty()


def test_tables_of_one_function_are_just_keys(tmp_path: Path) -> None:
    old = PreviousTree.read(make_tree(tmp_path, {"movies": as_keys([1, 2])}), tolerance=0.1, built_tolerance=0.1)
    movies = old.held["movies"]
    assert (movies.function, movies.keys.tolist(), movies.alias_function) == (FUNCTION, [1, 2], None)
    assert (movies.aliases.tolist(), movies.sources, movies.compared.tolist()) == ([], {}, [])
    assert movies.alias_share == 1.0


def test_a_damaged_table_is_left_out_and_its_size_is_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree = make_tree(tmp_path, {"movies": as_keys([1, 2]), "news": as_keys([3])})
    path = tmp_path / "movies" / "scales.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with caplog.at_level(logging.WARNING):
        old = PreviousTree.read(tree, tolerance=0)
    assert set(old.tables) == set(old.held) == {"news"}
    assert old.sizes == {domain: table.bytes for domain, table in tree.tables.items()}
    assert "the previous rows of domain movies are computed anew" in caplog.text


def test_reading_can_be_watched_and_ended(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"movies": as_keys([1, 2]), "news": as_keys([3])})
    steps: list[BuildProgress] = []
    PreviousTree.read(tree, tolerance=0, progress=steps.append)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1] == BuildProgress("check", 3, 3)

    def end(_: BuildProgress) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        PreviousTree.read(tree, tolerance=0, progress=end)


def test_aliases_and_compared_rows_of_a_domain_with_a_delta_are_distinguished(tmp_path: Path) -> None:
    builder = Builder(functions=DELTA, tolerance=0.1)
    tree = built(tmp_path, builder, general=KEYS, reviews=[*KEYS, 50])
    table, reviews = tree.tables["reviews"], builder.old(tree).held["reviews"]
    assert reviews.alias_function == FUNCTION
    assert {digest: keys.tolist() for digest, keys in reviews.sources.items()} == {FUNCTION: table.aliases.tolist()}
    assert reviews.compared.tolist() == sorted({*table.keys.tolist()} - {50})  # nothing was there to compare 50 with
    assert reviews.alias_share == (np.count_nonzero(table.aliases) + 1) / 40  # unigrams, as key 0, are not counted


def test_aliases_are_grouped_by_the_function_of_the_row_they_refer_to(tmp_path: Path) -> None:
    builder = Builder(functions=BOTH, tolerance=0.9)
    tree = built(tmp_path, builder, general=KEYS[:20], reviews=KEYS, movies=KEYS)
    sources = builder.old(tree).held["movies"].sources
    assert tree.tables["movies"].aliases.tolist() == KEYS
    assert sources[FUNCTION].tolist() == tree.tables["reviews"].aliases.tolist() == KEYS[:20]
    assert sources[BOTH["reviews"].digest].tolist() == KEYS[20:]


@pytest.mark.parametrize(
    ("before", "now", "aliases", "compared"),
    [(0.1, 0.1, True, True), (0.1, 0.2, True, False), (0.1, 0.05, False, True), (None, 0.1, False, False)],
)
def test_compared_rows_stay_known_as_far_as_both_tolerances_allow(
    tmp_path: Path, before: float | None, now: float, aliases: bool, compared: bool
) -> None:
    tree = built(tmp_path, Builder(functions=DELTA, tolerance=0.1), general=KEYS, reviews=KEYS)
    reviews = PreviousTree.read(tree, tolerance=now, built_tolerance=before).held["reviews"]
    assert (bool(reviews.sources), bool(len(reviews.compared))) == (aliases, compared)
    assert len(reviews.aliases)


def test_an_alias_stays_when_its_function_is_given_again() -> None:
    table = PreviousTable("f", as_keys([9]), as_keys([1, 2, 3]), "a", {"a": as_keys([1, 2]), "b": as_keys([3])})
    given = {"a": as_keys([1, 3]), "b": as_keys([2, 3])}
    stays = kept_aliases([table], as_keys([1, 2, 3, 9]), lambda source, keys: np.isin(keys, given[source]))
    assert stays.tolist() == [True, False, True, False]


# Errors under backoff


def packed(*windows: tuple[int, int, int]) -> list[int]:
    return [((prev + 1) << 42) | ((mid + 1) << 21) | (following + 1) for prev, mid, following in windows]


def relative(own: int, other: int) -> float:
    rows = rows_of(np.array([own, other], np.uint64)).astype(np.float64)
    return min(1.0, float(np.linalg.norm(rows[0] - rows[1]) / np.linalg.norm(rows[0])))


def test_the_error_of_a_backoff_row_is_measured_from_stored_rows(tmp_path: Path) -> None:
    full, left, right, alone = packed((1, 2, 3), (1, 2, -1), (-1, 2, 3), (-1, 2, -1))
    other, deep = packed((4, 2, 3), (5, 2, 6))
    tree = make_tree(tmp_path, {"general": as_keys([alone, left, right]), "movies": as_keys([full, other, deep])})
    errors = PreviousTree.read(tree, tolerance=0).backoff.errors
    queries = as_keys([full, other, deep, left])
    expected = {full: left, other: right, deep: alone, left: alone}
    found = dict(zip(queries.tolist(), errors("movies", queries).tolist(), strict=True))
    assert found == pytest.approx({key: relative(key, by) for key, by in expected.items()}, abs=0.02)


def test_the_error_of_what_is_not_held_is_the_mean_of_its_level(tmp_path: Path) -> None:
    held = packed((5, 2, 6), (6, 2, 6), (7, 2, 6))
    (alone,) = packed((-1, 2, -1))
    tree = make_tree(tmp_path, {"general": as_keys([alone]), "movies": as_keys(held)})
    errors = PreviousTree.read(tree, tolerance=0).backoff.errors
    unknown, without = packed((9, 2, 9), (9, 8, 9))
    found = errors("movies", as_keys([*held, unknown, without]))
    mean = np.mean([relative(key, alone) for key in held])
    by_key = dict(zip(sorted([*held, unknown, without]), found.tolist(), strict=True))
    assert by_key[unknown] == pytest.approx(mean, abs=0.02)
    assert by_key[without] == 1.0  # no row at all
    assert errors("sports", as_keys(held)).tolist() == TYPICAL_BACKOFF.errors("sports", as_keys(held)).tolist()


def test_the_gain_of_bigrams_is_measured_where_they_are_held(tmp_path: Path) -> None:
    every = [((prev, mid, 0), (prev, mid, -1), (-1, mid, -1)) for prev in range(60) for mid in range(9)]
    measured = [
        (relative(key, alone), relative(key, short), key, short)
        for key, short, alone in (packed(*each) for each in every)
    ]
    best = sorted(measured, key=lambda each: each[1] - each[0])[:35]  # those whose bigrams do better
    of_unigrams, of_bigrams = np.mean([each[:2] for each in best], axis=0)
    assert of_bigrams < of_unigrams - 0.2
    windows, bigrams = [each[2] for each in best], [each[3] for each in best]
    alone = packed(*((-1, mid, -1) for mid in range(9)))
    few = np.mean([each[0] for each in best[:9]])
    for number, (held, gain) in enumerate(
        [
            ({"general": as_keys([*alone, *bigrams]), "movies": as_keys(windows)}, of_unigrams - of_bigrams),
            ({"general": as_keys([*alone, *bigrams[:9]]), "movies": as_keys(windows)}, of_unigrams / 2),
            ({"general": as_keys([*alone, *bigrams]), "movies": as_keys(windows[:9])}, few / 2),
            ({"general": as_keys(alone)}, TYPICAL_BACKOFF.bigram_gain("movies", as_keys(windows))),
        ]
    ):
        measure = PreviousTree.read(make_tree(tmp_path / str(number), held), tolerance=0).backoff.bigram_gain
        assert measure("movies", as_keys([*windows, *packed((9, 8, 9))])) == pytest.approx(gain, abs=0.02)
        assert measure("sports", as_keys(windows)) == TYPICAL_BACKOFF.bigram_gain("sports", as_keys(windows)) > 0


def test_estimated_domains_have_the_estimators_error_and_gain_nothing_from_bigrams(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"general": as_keys(packed((-1, 2, -1))), "movies": as_keys(packed((1, 2, 3)))})
    old = PreviousTree.read(tree, tolerance=0)
    keys = as_keys(packed((1, 2, 3), (4, 2, 5)))
    estimated = old.backoff.with_mean_errors({"movies": 0.25})
    assert estimated.errors("movies", keys).tolist() == [0.25, 0.25]
    assert estimated.bigram_gain("movies", keys) == 0
    assert estimated.errors("news", keys).tolist() == old.backoff.errors("news", keys).tolist()
    assert estimated.bigram_gain("news", keys) == old.backoff.bigram_gain("news", keys)
    assert old.backoff.with_mean_errors({}) == old.backoff


def test_an_alias_has_no_error_under_backoff(tmp_path: Path) -> None:
    builder = Builder(functions=DELTA, tolerance=0.1)
    tree = built(tmp_path, builder, general=KEYS, reviews=KEYS)
    errors = builder.old(tree).backoff.errors
    table = tree.tables["reviews"]
    assert errors("reviews", table.aliases).max() == 0
    own, above = function_rows(DELTA["reviews"], table.keys), rows_of(table.keys)
    moved = np.linalg.norm(own - above, axis=1) / np.linalg.norm(own, axis=1)
    assert errors("reviews", table.keys) == pytest.approx(moved, abs=0.03)
