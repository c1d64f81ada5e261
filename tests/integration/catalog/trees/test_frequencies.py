"""NgramCounts of n-grams add up, fade, and survive a change of scale."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from sqlalchemy import select

from hmi.catalog import Database, NgramCounts, database_time, domains, frequencies
from hmi.catalog.schema import NgramFrequency
from hmi.catalog.trees.frequencies import add, load
from hmi.errors import NotFound
from tests.integration.catalog.seeding import add_base, race

_DAY = 86_400.0
_T0 = 1_800_000_000.0


@pytest.fixture
def base_id(database: Database) -> str:
    return add_base(database).id


@pytest.fixture
def general_id(database: Database) -> str:
    with database.session() as session:
        return domains.get_domain(session, "general").id


def _weights(database: Database, base_id: str, *, at: float = _T0) -> dict[int, float]:
    found = load(database, base_id, at=at).get("general")
    return {} if found is None else dict(zip(found.ngrams.tolist(), found.weights.tolist(), strict=True))


def test_counts_add_up_when_flushed_at_one_time(database: Database, base_id: str, general_id: str) -> None:
    with database.session() as session:
        add(session, [NgramCounts(base_id, general_id, [5, 3, 5], [1, 2, 4])], half_life_seconds=_DAY, at=_T0)
        add(session, [NgramCounts(base_id, general_id, [3, 9], [10, 1])], half_life_seconds=_DAY, at=_T0)
        add(session, [NgramCounts(base_id, general_id, [], [])], half_life_seconds=_DAY, at=_T0)
    assert _weights(database, base_id) == pytest.approx({3: 12.0, 5: 5.0, 9: 1.0})


def test_a_count_is_halved_when_a_half_life_has_passed(database: Database, base_id: str, general_id: str) -> None:
    with database.session() as session:
        add(session, [NgramCounts(base_id, general_id, [1, 2], [8, 8])], half_life_seconds=_DAY, at=_T0)
    with database.session() as session:
        add(session, [NgramCounts(base_id, general_id, [1], [3])], half_life_seconds=_DAY, at=_T0 + _DAY)
    assert _weights(database, base_id, at=_T0 + _DAY) == pytest.approx({1: 7.0, 2: 4.0})
    assert _weights(database, base_id, at=_T0 + 3 * _DAY) == pytest.approx({1: 1.75, 2: 1.0})


def test_weights_stay_right_when_a_thousand_half_lives_pass(database: Database, base_id: str, general_id: str) -> None:
    expected, at = {7: 0.0}, _T0
    for step in range(60):
        at = _T0 + step * 20 * 3600.0  # 20 half-lives of an hour: the scale moves many times over
        with database.session() as session:
            add(session, [NgramCounts(base_id, general_id, [7], [4])], half_life_seconds=3600.0, at=at)
        expected = {7: expected[7] * 2.0**-20 + 4}
        assert _weights(database, base_id, at=at) == pytest.approx(expected)


def test_old_counts_fade_by_the_old_half_life_when_it_is_set_anew(
    database: Database, base_id: str, general_id: str
) -> None:
    with database.session() as session:
        add(session, [NgramCounts(base_id, general_id, [1], [16])], half_life_seconds=_DAY, at=_T0)
    with database.session() as session:
        add(session, [NgramCounts(base_id, general_id, [2], [16])], half_life_seconds=_DAY / 2, at=_T0 + _DAY)
    assert _weights(database, base_id, at=_T0 + _DAY) == pytest.approx({1: 8.0, 2: 16.0})
    assert _weights(database, base_id, at=_T0 + 2 * _DAY) == pytest.approx({1: 2.0, 2: 4.0})


def test_the_database_clock_is_used_when_no_time_is_given(database: Database, base_id: str, general_id: str) -> None:
    with database.session() as session:
        add(session, [NgramCounts(base_id, general_id, [1], [100])], half_life_seconds=_DAY)
        moment = database_time(session)
    found = load(database, base_id)["general"]
    assert found.weights.tolist() == pytest.approx([100.0], rel=1e-3)
    assert _weights(database, base_id, at=moment + _DAY) == pytest.approx({1: 50.0}, rel=1e-3)


def test_every_count_lands_when_flushes_race(database: Database, base_id: str, general_id: str) -> None:
    keys = np.arange(3000, dtype=np.uint64)

    def flush(seed: int) -> None:
        chance = np.random.default_rng(seed)
        for _ in range(3):
            order = chance.permutation(keys)
            with database.session() as session:
                add(
                    session,
                    [NgramCounts(base_id, general_id, order, np.ones(len(keys)))],
                    half_life_seconds=_DAY,
                    at=_T0,
                )

    assert race([functools.partial(flush, seed) for seed in range(4)]) == [None] * 4
    found = _weights(database, base_id)
    assert found == pytest.approx(dict.fromkeys(range(3000), 12.0))


def test_old_and_new_counts_compare_when_seventy_half_lives_lie_between(
    database: Database, base_id: str, general_id: str
) -> None:
    with database.session() as session:
        add(session, [NgramCounts(base_id, general_id, [1], [2.0**40])], half_life_seconds=_DAY, at=_T0)
    later = _T0 + 70 * _DAY

    def flush() -> None:
        with database.session() as session:
            add(session, [NgramCounts(base_id, general_id, [2], [1])], half_life_seconds=_DAY, at=later)

    assert race([flush] * 4) == [None] * 4
    assert _weights(database, base_id, at=later) == pytest.approx({1: 2.0**-30, 2: 4.0})


def test_the_greatest_key_and_separate_domains_are_loaded(database: Database, base_id: str, general_id: str) -> None:
    greatest = 2**63 - 1
    with database.session() as session:
        news = domains.create_domain(session, "news")
        keys = np.array([greatest, 0], dtype=np.uint64)
        add(session, [NgramCounts(base_id, general_id, keys, [1, 2])], half_life_seconds=_DAY, at=_T0)
        add(session, [NgramCounts(base_id, news.id, [greatest], [3])], half_life_seconds=_DAY, at=_T0)
    found = load(database, base_id, at=_T0)
    assert set(found) == {"general", "news"}
    assert found["general"].ngrams.dtype == np.uint64
    assert found["general"].ngrams.tolist() == [0, greatest]
    assert found["general"].weights.tolist() == pytest.approx([2.0, 1.0])
    assert found["news"].weights.tolist() == pytest.approx([3.0])


def test_counting_is_refused_when_the_base_is_unknown(database: Database, general_id: str) -> None:
    with pytest.raises(NotFound), database.session() as session:
        add(session, [NgramCounts("base_unknown", general_id, [1], [1])], half_life_seconds=_DAY)
    assert _weights(database, "base_unknown") == {}


def _stored(database: Database) -> list[tuple[int, float]]:
    with database.session(read_only=True) as session:
        columns = (NgramFrequency.ngram, NgramFrequency.log_weight)
        return [(row[0], row[1]) for row in session.execute(select(*columns).order_by(*columns))]


def test_no_stored_row_is_touched_when_the_half_life_is_set_anew(
    database: Database, base_id: str, general_id: str
) -> None:
    with database.session() as session:
        add(session, [NgramCounts(base_id, general_id, [1, 2], [16, 4])], half_life_seconds=_DAY, at=_T0)
    before = _stored(database)
    for step, half_life in enumerate([_DAY / 7, 60.0, 365 * _DAY], start=1):
        with database.session() as session:
            add(session, [NgramCounts(base_id, general_id, [9], [1])], half_life_seconds=half_life, at=_T0 + step)
    assert _stored(database)[:2] == before
    # A day by the first half-life halves them; what came after the change hardly fades any more.
    weights = _weights(database, base_id, at=_T0 + 3)
    assert weights[2] == pytest.approx(4 * 2 ** -(1 / _DAY + 7 / _DAY + 1 / 60))


def test_a_count_too_old_for_a_float_is_nothing_when_it_is_loaded(
    database: Database, base_id: str, general_id: str
) -> None:
    with database.session() as session:
        add(session, [NgramCounts(base_id, general_id, [1, 2], [5, 5])], half_life_seconds=1.0, at=_T0)
    with database.session() as session:
        add(session, [NgramCounts(base_id, general_id, [2], [3])], half_life_seconds=1.0, at=_T0 + 1e6)
    assert _weights(database, base_id, at=_T0 + 1e6) == pytest.approx({1: 0.0, 2: 3.0})


def test_several_domains_are_written_in_one_transaction(database: Database, base_id: str, general_id: str) -> None:
    with database.session() as session:
        news = domains.create_domain(session, "news").id
    parts = [NgramCounts(base_id, news, [3, 1], [1, 2]), NgramCounts(base_id, general_id, [7], [4])]
    parts += [NgramCounts(base_id, news, [1, 8], [5, 0]), NgramCounts(base_id, general_id, [], [])]
    with database.session() as session:
        add(session, parts, half_life_seconds=_DAY, at=_T0)
    found = load(database, base_id, at=_T0)
    assert dict(zip(found["news"].ngrams.tolist(), found["news"].weights, strict=True)) == pytest.approx({1: 7, 3: 1})
    assert dict(zip(found["general"].ngrams.tolist(), found["general"].weights, strict=True)) == pytest.approx({7: 4})


def test_every_count_lands_when_flushes_of_several_domains_race(
    database: Database, base_id: str, general_id: str
) -> None:
    with database.session() as session:
        ids = [general_id, *(domains.create_domain(session, name).id for name in ("news", "movies", "tweets"))]

    def flush(seed: int) -> None:
        chance = np.random.default_rng(seed)
        for _ in range(3):
            parts = [
                NgramCounts(base_id, ids[place], chance.permutation(200), np.ones(200))
                for place in chance.permutation(4)
            ]
            with database.session() as session:
                add(session, parts, half_life_seconds=_DAY, at=_T0)

    assert race([functools.partial(flush, seed) for seed in range(4)]) == [None] * 4
    for found in load(database, base_id, at=_T0).values():
        assert found.ngrams.tolist() == list(range(200))
        assert found.weights.tolist() == pytest.approx([12.0] * 200)


def test_everything_is_loaded_when_it_takes_several_pages(
    database: Database, base_id: str, general_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmi.catalog.trees.frequencies._PAGE", 4)
    for size in (8, 9):  # the last page full, and not
        with database.session() as session:
            add(session, [NgramCounts(base_id, general_id, range(size), np.ones(size))], half_life_seconds=_DAY, at=_T0)
        assert sorted(_weights(database, base_id)) == list(range(size))


def test_what_is_counted_meanwhile_is_seen_when_pages_are_read_one_by_one(
    database: Database, base_id: str, general_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmi.catalog.trees.frequencies._PAGE", 2)
    with database.session() as session:
        add(session, [NgramCounts(base_id, general_id, range(6), np.ones(6))], half_life_seconds=_DAY, at=_T0)
        place = session.execute(select(NgramFrequency.place_id).distinct()).scalar_one()
    seen = []
    for ngrams, _, _ in frequencies._iter_pages(database, place):
        seen += ngrams.tolist()
        if len(seen) < 6:
            with database.session() as session:
                add(session, [NgramCounts(base_id, general_id, [len(seen) + 100], [1])], half_life_seconds=_DAY, at=_T0)
    assert seen == [*range(6), 102, 104]


def test_who_asked_is_merged_and_survives_decay(database: Database, base_id: str, general_id: str) -> None:
    for bitmaps, at in (([1, 2, 0], _T0), ([4, 2, 1 << 62], _T0 + 30 * _DAY)):
        with database.session() as session:
            add(
                session,
                [
                    NgramCounts(base_id, general_id, [5, 6, 7], np.ones(3), bitmaps),
                    NgramCounts(base_id, general_id, [5], [1], 8),
                ],
                half_life_seconds=_DAY,
                at=at,
            )
    counted = frequencies.load(database, base_id)["general"]
    assert counted.ngrams.tolist() == [5, 6, 7]
    assert counted.tenants.tolist() == [1 | 4 | 8, 2, 1 << 62]
