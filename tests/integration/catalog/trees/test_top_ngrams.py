from __future__ import annotations

import numpy as np
import pytest

from hmi.catalog import (
    Audience,
    Database,
    DomainView,
    NgramCounts,
    RegisteredBase,
    domains,
    frequencies,
    tenants,
    trees,
)
from hmi.catalog.trees import Viewer
from hmi.catalog.trees.top_ngrams import CountedNgram, NgramTotals
from hmi.errors import InvalidInput
from hmi.tenant_bits import PUBLIC, bitmap_of
from tests.integration.catalog.seeding import add_base

HALF_LIFE = 1e9
ALL = Viewer(1)


def _count(
    database: Database, base: RegisteredBase, domain: DomainView, counts: dict[int, float], tenants: int = PUBLIC
) -> None:
    with database.session() as session:
        ngrams, weights = list(counts), list(counts.values())
        frequencies.add(
            session, [NgramCounts(base.id, domain.id, ngrams, weights, tenants)], half_life_seconds=HALF_LIFE
        )


def _domain(database: Database, name: str) -> DomainView:
    with database.session() as session:
        return domains.create_domain(session, name)


def test_each_ngram_is_listed_once_by_descending_count_when_read_in_pages(database: Database) -> None:
    base, news = add_base(database), _domain(database, "news")
    counts = {key: float(key % 4 + 1) for key in range(1, 40)} | {2**63 - 1: 9.0}
    _count(database, base, news, counts)
    _count(database, base, _domain(database, "other"), {7: 1000.0})
    seen: list[CountedNgram] = []
    with database.session(read_only=True) as session:
        assert trees.count_ngrams(session, base.id, news, ALL) == NgramTotals(shown=40)
        while page := trees.list_top_ngrams(
            session, base.id, news, ALL, limit=7, after=seen[-1].ngram if seen else None
        ):
            seen += page
    assert [each.ngram for each in seen] == sorted(counts, key=lambda key: (-counts[key], key))
    assert [each.count for each in seen] == pytest.approx([counts[each.ngram] for each in seen], rel=1e-3)


def test_older_counts_weigh_less_when_ngrams_are_ranked(database: Database) -> None:
    base, news = add_base(database), _domain(database, "news")
    with database.session() as session:
        frequencies.add(
            session, [NgramCounts(base.id, news.id, [1], [10.0], PUBLIC)], half_life_seconds=100.0, at=1000.0
        )
        frequencies.add(
            session, [NgramCounts(base.id, news.id, [2], [9.0], PUBLIC)], half_life_seconds=100.0, at=1100.0
        )
    with database.session(read_only=True) as session:
        found = trees.list_top_ngrams(session, base.id, news, ALL, limit=5)
    assert [each.ngram for each in found] == [2, 1]


def test_there_is_nothing_after_an_ngram_that_is_not_counted(database: Database) -> None:
    base, news = add_base(database), _domain(database, "news")
    with database.session(read_only=True) as session:
        assert trees.list_top_ngrams(session, base.id, news, ALL, limit=5) == []
        assert trees.count_ngrams(session, base.id, news, ALL) == NgramTotals()
    _count(database, base, news, {1: 1.0})
    with database.session(read_only=True) as session, pytest.raises(InvalidInput) as caught:
        trees.list_top_ngrams(session, base.id, news, ALL, limit=5, after=2)
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


def test_an_ngram_is_listed_only_if_a_shared_table_may_hold_it(database: Database) -> None:
    base, news = add_base(database), _domain(database, "news")
    for key, bitmap in enumerate((0, 0b1, 0b11, 0b111, PUBLIC), start=1):
        _count(database, base, news, {key: float(key)}, bitmap)
    with database.session(read_only=True) as session:
        listed = {
            least: [each.ngram for each in trees.list_top_ngrams(session, base.id, news, Viewer(least), limit=9)]
            for least in (1, 2, 3, 4)
        }
        assert trees.count_ngrams(session, base.id, news, Viewer(3)) == NgramTotals(2, 2, 1)
        messages = []
        for after in (2, 99):  # one that is hidden, and one that is not counted
            with pytest.raises(InvalidInput) as caught:
                trees.list_top_ngrams(session, base.id, news, Viewer(3), limit=9, after=after)
            messages.append(caught.value.message)
    assert listed == {1: [5, 4, 3, 2], 2: [5, 4, 3], 3: [5, 4], 4: [5]}
    assert messages[0] == messages[1]


def test_a_private_domains_ngrams_are_its_owners_alone(database: Database) -> None:
    base = add_base(database)
    with database.session() as session:
        owner, other = (tenants.create_tenant(session, name) for name in ("acme", "rival"))
        diary = domains.create_domain(session, "diary", owner="acme", audience=Audience.PRIVATE)
    mine, foreign = bitmap_of(owner.bit), bitmap_of(other.bit)
    for key, bitmap in enumerate((mine, foreign, mine | foreign, PUBLIC, 0), start=1):
        _count(database, base, diary, {key: 1.0}, bitmap)

    def listed(tenant_id: str | None) -> list[int]:
        with database.session(read_only=True) as session:
            found = trees.list_top_ngrams(session, base.id, diary, Viewer(1, tenant_id), limit=9)
        return sorted(each.ngram for each in found)

    assert listed(owner.id) == [1, 3, 4]
    assert listed(other.id) == listed(None) == [4]


def test_counts_of_unknown_origin_are_declared_public_and_no_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmi.catalog.trees.chunks.ChunkedTransactions.rows", 4)
    base, news, other = add_base(database), _domain(database, "news"), _domain(database, "other")
    _count(database, base, news, dict.fromkeys(range(10), 1.0), 0)
    _count(database, base, news, {20: 1.0}, 0b1)
    _count(database, base, other, {1: 1.0}, 0)
    assert trees.declare_public(database, base.id, news.id) == 10
    assert trees.declare_public(database, base.id, news.id) == 0
    assert trees.declare_public(database, base.id, "domain_" + "0" * 32) == 0
    with database.session(read_only=True) as session:
        assert trees.count_ngrams(session, base.id, news, Viewer(3)) == NgramTotals(10, 1, 0)
        assert trees.count_ngrams(session, base.id, other, Viewer(3)) == NgramTotals(0, 0, 1)
