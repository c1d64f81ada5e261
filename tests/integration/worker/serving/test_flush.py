"""Flushing counts from a worker's memory into the catalog."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete

from hmi.catalog import (
    OPERATOR,
    Audience,
    ChunkedTransactions,
    FrequencyLimits,
    HitCounts,
    Principal,
    Role,
    audiences,
    bases,
    domains,
    execute_dml,
    frequencies,
    tenants,
    trees,
)
from hmi.catalog.schema import ScheduleTick
from hmi.catalog.trees import trimming
from hmi.errors import Transient
from hmi.knowledge import Keys, ngrams
from hmi.knowledge.counts import FrequencyCounter
from hmi.spec import CountPolicy
from hmi.tenant_bits import bitmap_of
from tests.runtimes import run_waiting, running
from tests.worksite import Worksite, line
from worker.runtime import Runtime
from worker.serving import FrequencyFlusher

MODEL = "acme/sentiment"


def loaded(site: Worksite) -> dict[str, frequencies.DomainFrequencies]:
    with site.database.session(read_only=True) as session:
        base = bases.get_base(session, "base")
    return frequencies.load(site.database, base.id)


def usage(site: Worksite) -> dict[str, HitCounts]:
    with site.database.session(read_only=True) as session:
        return trees.hit_counts(session, bases.get_base(session, "base").id, 0)


def test_lookups_are_counted_once_when_they_are_flushed(site: Worksite, runtime: Runtime) -> None:
    site.submit("acme", [line("a", MODEL, [[5, 6, 7], [5, 6, 7]])])
    run_waiting(runtime, site)
    runtime.flusher.flush()
    runtime.flusher.flush()
    counted = loaded(site)["general"]
    keys = ngrams.window_keys(np.array([5, 6, 7]), np.array([3]))
    np.testing.assert_array_equal(counted.ngrams, np.sort(keys))
    np.testing.assert_allclose(counted.weights, 2, rtol=1e-3)
    assert usage(site) == {"general": HitCounts(6, 0)}


def test_a_tenant_is_counted_by_its_bit_unless_it_chose_not_to_be(site: Worksite, runtime: Runtime) -> None:
    site.add_tenant("beta")
    site.add_model("beta", "sentiment")

    def ask(first: int) -> dict[int, int]:
        for tenant in ("acme", "beta"):
            site.submit(tenant, [line("a", f"{tenant}/sentiment", [first, first])])
        run_waiting(runtime, site)
        runtime.flusher.flush()
        counted = loaded(site)["general"]
        is_new = (ngrams.unpack(counted.ngrams) == first).any(1)
        return dict(zip(counted.weights[is_new].round().tolist(), counted.tenants[is_new].tolist(), strict=True))

    with site.database.session(read_only=True) as session:
        acme, beta = (bitmap_of(tenants.get_tenant(session, name).bit) for name in ("acme", "beta"))
    assert ask(5) == {2.0: acme | beta}
    with site.database.session() as session:
        tenants.change_tenant(session, "acme", {"counts": CountPolicy.NONE})
    assert ask(6) == {1.0: beta}
    with site.database.session() as session:
        tenants.change_tenant(session, "acme", {"counts": None})
    assert ask(7) == {2.0: acme | beta}
    assert usage(site) == {"general": HitCounts(12, 0)}  # all lookups


def test_counts_are_flushed_when_the_worker_stops(site: Worksite) -> None:
    with running(site) as runtime:
        site.submit("acme", [line("a", MODEL, [5, 6, 7])])
        run_waiting(runtime, site)
        assert loaded(site) == {}
    assert loaded(site)["general"].weights.sum() == pytest.approx(3, rel=1e-3)


def test_only_the_rest_is_kept_when_a_flush_fails_midway(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChunkedTransactions, "rows", 4)
    site.submit("acme", [line("a", MODEL, list(range(5, 15)))])
    run_waiting(runtime, site)
    real, calls = frequencies.add, []

    def add(*arguments: object, **keywords: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise Transient("the database is gone")
        real(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(frequencies, "add", add)
    with pytest.raises(Transient):
        runtime.flusher.flush()
    assert len(loaded(site)["general"].ngrams) == 4
    runtime.flusher.flush()
    counted = loaded(site)["general"]
    assert len(counted.ngrams) == 10
    np.testing.assert_allclose(counted.weights, 1, rtol=1e-3)
    assert usage(site) == {"general": HitCounts(10, 0)}


def test_counts_are_dropped_when_their_domain_is_unknown(site: Worksite, runtime: Runtime) -> None:
    keys = ngrams.window_keys(np.array([5, 6, 7]), np.array([3]))
    runtime.engine.frequencies.count("no such base", "general", keys, np.zeros(3, bool), 0)
    runtime.flusher.flush()
    assert loaded(site) == {}
    assert runtime.engine.frequencies.drain() == []


def keys_of(*numbers: int) -> Keys:
    return np.array(numbers, np.uint64)


@pytest.fixture
def counter() -> FrequencyCounter:
    return FrequencyCounter(1000)


@pytest.fixture
def flusher(site: Worksite, counter: FrequencyCounter) -> FrequencyFlusher:
    return FrequencyFlusher(
        site.database, counter, site.settings.frequency_half_life_seconds, FrequencyLimits(1000, 1000)
    )


@pytest.fixture
def digest(site: Worksite) -> str:
    with site.database.session(read_only=True) as session:
        return bases.get_base(session, "base").artifact


def test_many_domains_are_written_in_few_transactions_when_each_has_little(
    site: Worksite, counter: FrequencyCounter, flusher: FrequencyFlusher, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site.database.session() as session:
        names = [domains.create_domain(session, f"domain{number}").name for number in range(40)]
    for number, name in enumerate(names):
        counter.count(digest, name, keys_of(number, 99), np.ones(2, bool), 0, inherited=1, approximate=number < 10)
    sizes = []
    monkeypatch.setattr(ChunkedTransactions, "adapt", lambda self, rows, seconds: sizes.append(rows))
    flusher.flush()
    assert len(sizes) == 1  # of 500 rows
    found, used = loaded(site), usage(site)
    for number, name in enumerate(names):
        assert found[name].ngrams.tolist() == [number, 99]
        assert used[name] == HitCounts(2, 2, inherited=1, approximate=2 * (number < 10))


def test_a_domains_lookups_are_counted_once_when_its_ngrams_take_several_transactions(
    site: Worksite, counter: FrequencyCounter, flusher: FrequencyFlusher, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChunkedTransactions, "rows", 30)
    counter.count(digest, "general", np.arange(100, dtype=np.uint64), np.arange(100) < 60, 0, inherited=20)
    flusher.flush()
    assert loaded(site)["general"].ngrams.tolist() == list(range(100))
    assert usage(site) == {"general": HitCounts(100, 60, inherited=20)}


def test_the_catalog_stays_bounded_when_no_tree_is_ever_built(
    site: Worksite, counter: FrequencyCounter, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(0)
    monkeypatch.setattr(trimming, "randbelow", lambda below: int(chance.integers(below)))
    flusher = FrequencyFlusher(site.database, counter, 1e9, FrequencyLimits(500, 2000))
    heavy = keys_of(*range(10_000, 10_010))
    for start in range(0, 9_000, 900):
        keys = np.concatenate([np.arange(start, start + 900, dtype=np.uint64), *[heavy] * 5])
        counter.count(digest, "general", keys, np.zeros(len(keys), bool), 0)
        with site.database.session() as session:  # a minute has passed
            execute_dml(session, delete(ScheduleTick))
        flusher.flush()
        kept = loaded(site)["general"]
        assert 300 <= len(kept.ngrams) <= 500
        assert set(heavy.tolist()) <= set(kept.ngrams.tolist())


def test_counts_are_dropped_when_the_audience_became_wider_since(
    site: Worksite, counter: FrequencyCounter, flusher: FrequencyFlusher, digest: str
) -> None:
    with site.database.session() as session:
        domains.create_domain(session, "clinics", tenants=["acme"])
        operator = tenants.get_tenant(session, OPERATOR)
    admin = Principal(operator.id, OPERATOR, Role.ADMIN, "")

    def ask(*keys: int) -> None:
        for name in ("general", "clinics"):
            counter.count(digest, name, np.array(keys, np.uint64), np.zeros(len(keys), bool), 0)

    def held() -> dict[str, list[int]]:
        return {name: each.ngrams.tolist() for name, each in loaded(site).items()}

    ask(1, 2)
    flusher.flush()
    ask(3)
    with site.database.session() as session:
        audiences.set_audience(session, admin, "clinics", Audience.PUBLIC)
    flusher.flush()
    assert held() == {"general": [1, 2, 3]}
    assert usage(site)["clinics"].lookups == 3  # numbers of lookups say nothing about their texts
    ask(4)
    flusher.flush()
    assert held() == {"general": [1, 2, 3, 4], "clinics": [4]}


def test_counts_are_flushed_later_when_the_database_did_not_answer(
    site: Worksite, counter: FrequencyCounter, flusher: FrequencyFlusher, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site.database.session() as session:
        domains.create_domain(session, "news")
    monkeypatch.setattr(ChunkedTransactions, "rows", 10)
    for name in ("general", "news"):
        counter.count(digest, name, np.arange(25, dtype=np.uint64), np.zeros(25, bool), 0, approximate=True)
    real, failing = trees.record_hits, [True]

    def record_hits(*arguments: Any) -> None:
        real(*arguments)
        if failing:
            failing.pop()
            raise Transient("the database is gone")

    monkeypatch.setattr(trees, "record_hits", record_hits)
    with pytest.raises(Transient):
        flusher.flush()
    assert loaded(site) == {}  # what had not been committed
    flusher.flush()
    for name in ("general", "news"):
        np.testing.assert_allclose(loaded(site)[name].weights, np.ones(25), rtol=1e-3)
        assert usage(site)[name] == HitCounts(25, 0, approximate=25)
