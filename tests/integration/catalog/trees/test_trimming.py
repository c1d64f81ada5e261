"""The catalog's counts stay bounded, and what goes is what is light."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select

from hmi.catalog import ChunkedTransactions, Database, FrequencyLimits, NgramCounts, database_time, domains, trees
from hmi.catalog.schema import FrequencyPlace
from hmi.catalog.trees import trimming
from hmi.catalog.trees.frequencies import add, load
from tests.integration.catalog.seeding import add_base

_DAY = 86_400.0
_MANY = 10**9


@pytest.fixture
def base_id(database: Database) -> str:
    return add_base(database).id


@pytest.fixture
def domain_ids(database: Database) -> dict[str, str]:
    with database.session() as session:
        return {"general": domains.get_domain(session, "general").id, "news": domains.create_domain(session, "news").id}


@pytest.fixture(autouse=True)
def the_same_choice_of_equals_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(0)
    monkeypatch.setattr(trimming, "randbelow", lambda below: int(chance.integers(below)))


def _add(database: Database, base_id: str, domain_id: str, weights: np.ndarray, half_life: float = _DAY) -> None:
    """N-grams 0, 1, ... asked for so often."""
    with database.session() as session:
        add(session, [NgramCounts(base_id, domain_id, range(len(weights)), weights)], half_life_seconds=half_life)


def _kept(database: Database, base_id: str) -> dict[str, list[int]]:
    return {domain: found.ngrams.tolist() for domain, found in load(database, base_id).items()}


def _bounds(database: Database) -> list[int]:
    with database.session(read_only=True) as session:
        return list(session.scalars(select(FrequencyPlace.rows_bound).order_by(FrequencyPlace.id)))


def test_the_heaviest_stay_when_a_domain_has_too_many(
    database: Database, base_id: str, domain_ids: dict[str, str]
) -> None:
    order = np.random.default_rng(0).permutation(1000)
    for domain_id in domain_ids.values():
        _add(database, base_id, domain_id, order + 1.0)
        _add(database, base_id, domain_id, np.ones(500))
    assert _bounds(database) == [1500, 1500]
    assert trees.trim_frequencies(database, FrequencyLimits(800, _MANY)) == pytest.approx(2 * 300, abs=4)
    for kept in _kept(database, base_id).values():
        assert len(kept) == pytest.approx(700, abs=2)
        assert order[kept].min() >= 300 - 20  # some are equal as far as is looked
    assert _bounds(database) == [len(kept) for kept in _kept(database, base_id).values()]
    assert trees.trim_frequencies(database, FrequencyLimits(800, _MANY)) == 0


def test_the_lightest_of_all_go_when_there_are_too_many_in_all(
    database: Database, base_id: str, domain_ids: dict[str, str]
) -> None:
    other = add_base(database, "other", "b" * 64).id
    _add(database, base_id, domain_ids["general"], np.full(1000, 50.0))
    _add(database, base_id, domain_ids["news"], np.full(1000, 2.0))
    # By a clock of its own, which another half-life has moved far away.
    _add(database, other, domain_ids["news"], np.ones(1), half_life=1000 * _DAY)
    _add(database, other, domain_ids["news"], np.full(1000, 20.0), half_life=_DAY)
    assert trees.trim_frequencies(database, FrequencyLimits(_MANY, 2400)) == pytest.approx(900, abs=20)
    kept = _kept(database, base_id)
    assert len(kept["general"]) == 1000
    assert 80 <= len(kept["news"]) <= 120
    assert len(_kept(database, other)["news"]) == 1000


def test_half_are_kept_of_equals_and_not_those_of_the_least_keys(
    database: Database, base_id: str, domain_ids: dict[str, str]
) -> None:
    _add(database, base_id, domain_ids["general"], np.ones(10_000))
    trees.trim_frequencies(database, FrequencyLimits(5_000, _MANY))
    kept = np.array(_kept(database, base_id)["general"])
    assert 4_000 <= len(kept) <= 5_000
    assert 0.3 < (kept < 5_000).mean() < 0.7


def test_nothing_is_deleted_when_the_same_ngrams_repeat(
    database: Database, base_id: str, domain_ids: dict[str, str]
) -> None:
    for _ in range(4):
        _add(database, base_id, domain_ids["general"], np.ones(100))
    assert _bounds(database) == [400]
    assert trees.trim_frequencies(database, FrequencyLimits(150, _MANY)) == 0
    assert _bounds(database) == [100]  # now it is known


def test_no_bound_is_too_low_when_others_count_while_rows_are_counted(
    database: Database, base_id: str, domain_ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(database, base_id, domain_ids["general"], np.ones(100))
    bounds = trimming._bounds

    def read_late(database: Database) -> dict[int, int]:
        seen = bounds(database)
        _add(database, base_id, domain_ids["general"], np.ones(130))
        return seen

    monkeypatch.setattr(trimming, "_bounds", read_late)
    trees.trim_frequencies(database, FrequencyLimits(99, _MANY))
    assert _bounds(database)[0] >= len(_kept(database, base_id)["general"])


def test_trimming_takes_many_transactions_when_many_rows_are_deleted(
    database: Database, base_id: str, domain_ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(database, base_id, domain_ids["general"], np.arange(1.0, 101))
    monkeypatch.setattr(ChunkedTransactions, "rows", 7)
    sizes = []
    monkeypatch.setattr(ChunkedTransactions, "adapt", lambda self, rows, seconds: sizes.append(rows))
    assert trees.trim_frequencies(database, FrequencyLimits(40, _MANY)) == pytest.approx(65, abs=1)
    assert sizes == [7] * 15
    assert len(_kept(database, base_id)["general"]) == pytest.approx(35, abs=1)


def test_one_process_trims_when_several_find_too_many(
    database: Database, base_id: str, domain_ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.session() as session:
        now = database_time(session)
    monkeypatch.setattr(trimming, "database_time", lambda session: now)
    _add(database, base_id, domain_ids["general"], np.arange(1.0, 101))
    assert trees.trim_frequencies_if_due(database, FrequencyLimits(100, _MANY)) == 0  # and claims no tick
    assert trees.trim_frequencies_if_due(database, FrequencyLimits(80, _MANY)) == pytest.approx(30, abs=1)
    assert trees.trim_frequencies_if_due(database, FrequencyLimits(8, _MANY)) == 0
    monkeypatch.setattr(trimming, "database_time", lambda session: now + 60)
    assert trees.trim_frequencies_if_due(database, FrequencyLimits(8, _MANY)) == pytest.approx(63, abs=2)


def test_bounds_are_no_less_than_the_rows_when_two_trims_count_at_once(
    database: Database, base_id: str, domain_ids: dict[str, str]
) -> None:
    for _ in range(3):
        _add(database, base_id, domain_ids["news"], np.ones(100))
    seen = trimming._bounds(database)
    assert trimming._count(database, seen) == trimming._count(database, seen)
    assert _bounds(database) == [100]
    _add(database, base_id, domain_ids["news"], np.ones(10))
    assert _bounds(database) == [110]
