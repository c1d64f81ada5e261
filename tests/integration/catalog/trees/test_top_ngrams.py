from __future__ import annotations

import numpy as np
import pytest

from hmi.catalog import Database, NgramCounts, RegisteredBase, domains, frequencies, trees
from hmi.catalog.trees.top_ngrams import CountedNgram
from hmi.errors import InvalidInput
from tests.integration.catalog.seeding import add_base

HALF_LIFE = 1e9


def _count(database: Database, base: RegisteredBase, domain_id: str, counts: dict[int, float]) -> None:
    with database.session() as session:
        ngrams, weights = list(counts), list(counts.values())
        frequencies.add(session, [NgramCounts(base.id, domain_id, ngrams, weights)], half_life_seconds=HALF_LIFE)


def _domain(database: Database, name: str) -> str:
    with database.session() as session:
        return domains.create_domain(session, name).id


def test_each_ngram_is_listed_once_by_descending_count_when_read_in_pages(database: Database) -> None:
    base, news = add_base(database), _domain(database, "news")
    counts = {key: float(key % 4 + 1) for key in range(1, 40)} | {2**63 - 1: 9.0}
    _count(database, base, news, counts)
    _count(database, base, _domain(database, "other"), {7: 1000.0})
    seen: list[CountedNgram] = []
    with database.session(read_only=True) as session:
        assert trees.count_ngrams(session, base.id, news) == 40
        while page := trees.list_top_ngrams(session, base.id, news, limit=7, after=seen[-1].ngram if seen else None):
            seen += page
    assert [each.ngram for each in seen] == sorted(counts, key=lambda key: (-counts[key], key))
    assert [each.count for each in seen] == pytest.approx([counts[each.ngram] for each in seen], rel=1e-3)


def test_older_counts_weigh_less_when_ngrams_are_ranked(database: Database) -> None:
    base, news = add_base(database), _domain(database, "news")
    with database.session() as session:
        frequencies.add(session, [NgramCounts(base.id, news, [1], [10.0])], half_life_seconds=100.0, at=1000.0)
        frequencies.add(session, [NgramCounts(base.id, news, [2], [9.0])], half_life_seconds=100.0, at=1100.0)
    with database.session(read_only=True) as session:
        found = trees.list_top_ngrams(session, base.id, news, limit=5)
    assert [each.ngram for each in found] == [2, 1]


def test_there_is_nothing_after_an_ngram_that_is_not_counted(database: Database) -> None:
    base, news = add_base(database), _domain(database, "news")
    with database.session(read_only=True) as session:
        assert trees.list_top_ngrams(session, base.id, news, limit=5) == []
        assert trees.count_ngrams(session, base.id, news) == 0
    _count(database, base, news, {1: 1.0})
    with database.session(read_only=True) as session, pytest.raises(InvalidInput) as caught:
        trees.list_top_ngrams(session, base.id, news, limit=5, after=2)
    assert caught.value.param == "after"


def test_all_counts_are_read_in_ascending_blocks(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmi.catalog.trees.frequencies._PAGE", 4)
    base, other = add_base(database), add_base(database, "other", "b" * 64)
    counts = {"news": {key: float(key) for key in range(1, 10)}, "tweets": {5: 2.0, 2**62: 3.0}}
    for name, each in counts.items():
        _count(database, base, _domain(database, name), each)
    found: dict[str, dict[int, float]] = {"news": {}, "tweets": {}}
    for block in frequencies.iter_blocks(database, base.id):
        assert len(block.ngrams) <= 4
        assert block.ngrams.dtype == np.uint64
        found[block.domain] |= dict(zip(block.ngrams.tolist(), block.counts.tolist(), strict=True))
    for name, expected in counts.items():
        assert list(found[name]) == sorted(expected)
        assert list(found[name].values()) == pytest.approx([expected[key] for key in found[name]], rel=1e-3)
    assert list(frequencies.iter_blocks(database, other.id)) == []
