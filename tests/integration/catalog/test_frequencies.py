"""Counts of n-grams add up, fade, and survive a change of scale."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from hmi.catalog.database import Database, clock
from hmi.catalog.domains import create_domain, get_domain
from hmi.catalog.frequencies import add, load, trim
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
        return get_domain(session, "general").id


def _weights(database: Database, base_id: str, *, half_life: float = _DAY, at: float = _T0) -> dict[int, float]:
    with database.session(read_only=True) as session:
        found = load(session, base_id, half_life_seconds=half_life, at=at).get("general")
    return {} if found is None else dict(zip(found.ngrams.tolist(), found.weights.tolist(), strict=True))


def test_counts_add_up_when_flushed_at_one_time(database: Database, base_id: str, general_id: str) -> None:
    with database.session() as session:
        add(session, base_id, general_id, [5, 3, 5], [1, 2, 4], half_life_seconds=_DAY, at=_T0)
        add(session, base_id, general_id, [3, 9], [10, 1], half_life_seconds=_DAY, at=_T0)
        add(session, base_id, general_id, [], [], half_life_seconds=_DAY, at=_T0)
    assert _weights(database, base_id) == {3: 12.0, 5: 5.0, 9: 1.0}


def test_a_count_is_halved_when_a_half_life_has_passed(database: Database, base_id: str, general_id: str) -> None:
    with database.session() as session:
        add(session, base_id, general_id, [1, 2], [8, 8], half_life_seconds=_DAY, at=_T0)
    with database.session() as session:
        add(session, base_id, general_id, [1], [3], half_life_seconds=_DAY, at=_T0 + _DAY)
    assert _weights(database, base_id, at=_T0 + _DAY) == pytest.approx({1: 7.0, 2: 4.0})
    assert _weights(database, base_id, at=_T0 + 3 * _DAY) == pytest.approx({1: 1.75, 2: 1.0})


def test_weights_stay_right_when_a_thousand_half_lives_pass(database: Database, base_id: str, general_id: str) -> None:
    expected, at = {7: 0.0}, _T0
    for step in range(60):
        at = _T0 + step * 20 * 3600.0  # 20 half-lives of an hour: the scale moves many times over
        with database.session() as session:
            add(session, base_id, general_id, [7], [4], half_life_seconds=3600.0, at=at)
        expected = {7: expected[7] * 2.0**-20 + 4}
        assert _weights(database, base_id, half_life=3600.0, at=at) == pytest.approx(expected)


def test_old_counts_fade_by_the_old_half_life_when_it_is_set_anew(
    database: Database, base_id: str, general_id: str
) -> None:
    with database.session() as session:
        add(session, base_id, general_id, [1], [16], half_life_seconds=_DAY, at=_T0)
    with database.session() as session:
        add(session, base_id, general_id, [2], [16], half_life_seconds=_DAY / 2, at=_T0 + _DAY)
    assert _weights(database, base_id, half_life=_DAY / 2, at=_T0 + _DAY) == pytest.approx({1: 8.0, 2: 16.0})
    assert _weights(database, base_id, half_life=_DAY / 2, at=_T0 + 2 * _DAY) == pytest.approx({1: 2.0, 2: 4.0})


def test_the_databases_clock_is_taken_when_no_time_is_given(database: Database, base_id: str, general_id: str) -> None:
    with database.session() as session:
        add(session, base_id, general_id, [1], [100], half_life_seconds=_DAY)
        moment = clock(session)
        found = load(session, base_id, half_life_seconds=_DAY)["general"]
    assert found.weights.tolist() == pytest.approx([100.0], rel=1e-3)
    assert _weights(database, base_id, at=moment + _DAY) == pytest.approx({1: 50.0}, rel=1e-3)


def test_every_count_lands_when_flushes_race(database: Database, base_id: str, general_id: str) -> None:
    keys = np.arange(3000, dtype=np.uint64)

    def flush(seed: int) -> None:
        chance = np.random.default_rng(seed)
        for _ in range(3):
            order = chance.permutation(keys)
            with database.session() as session:
                add(session, base_id, general_id, order, np.ones(len(keys)), half_life_seconds=_DAY, at=_T0)

    assert race([functools.partial(flush, seed) for seed in range(4)]) == [None] * 4
    found = _weights(database, base_id)
    assert len(found) == 3000
    assert set(found.values()) == {12.0}


def test_the_scale_moves_once_when_flushes_race_over_its_edge(
    database: Database, base_id: str, general_id: str
) -> None:
    with database.session() as session:
        add(session, base_id, general_id, [1], [2.0**40], half_life_seconds=_DAY, at=_T0)
    later = _T0 + 70 * _DAY

    def flush() -> None:
        with database.session() as session:
            add(session, base_id, general_id, [2], [1], half_life_seconds=_DAY, at=later)

    assert race([flush] * 4) == [None] * 4
    assert _weights(database, base_id, at=later) == pytest.approx({1: 2.0**-30, 2: 4.0})


def test_the_greatest_key_and_domains_apart_come_back_when_loaded(
    database: Database, base_id: str, general_id: str
) -> None:
    greatest = 2**63 - 1
    with database.session() as session:
        news = create_domain(session, "news")
        keys = np.array([greatest, 0], dtype=np.uint64)
        add(session, base_id, general_id, keys, [1, 2], half_life_seconds=_DAY, at=_T0)
        add(session, base_id, news.id, [greatest], [3], half_life_seconds=_DAY, at=_T0)
    with database.session() as session:
        found = load(session, base_id, half_life_seconds=_DAY, at=_T0)
    assert set(found) == {"general", "news"}
    assert found["general"].ngrams.dtype == np.uint64
    assert found["general"].ngrams.tolist() == [0, greatest]
    assert found["general"].weights.tolist() == [2.0, 1.0]
    assert found["news"].weights.tolist() == [3.0]


def test_the_heaviest_stay_when_a_domain_is_trimmed(database: Database, base_id: str, general_id: str) -> None:
    with database.session() as session:
        news = create_domain(session, "news")
        for domain_id in (general_id, news.id):
            add(session, base_id, domain_id, range(10), range(10), half_life_seconds=_DAY, at=_T0)
    with database.session() as session:
        assert trim(session, base_id, general_id, max_rows=3) == 7
        assert trim(session, base_id, general_id, max_rows=3) == 0
        assert len(load(session, base_id, half_life_seconds=_DAY, at=_T0)["news"].ngrams) == 10
    assert sorted(_weights(database, base_id)) == [7, 8, 9]


def test_counting_is_refused_when_the_base_is_unknown(database: Database, general_id: str) -> None:
    with pytest.raises(NotFound), database.session() as session:
        add(session, "base_unknown", general_id, [1], [1], half_life_seconds=_DAY)
    assert _weights(database, "base_unknown") == {}
