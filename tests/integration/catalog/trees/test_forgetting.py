from __future__ import annotations

import pytest
from sqlalchemy import select, update

from hmi.catalog import Audience, Database, NgramCounts, bases, domains, frequencies, tenants, trees
from hmi.catalog.schema import Domain, ForgottenTenant, NgramFrequency, Tenant
from hmi.catalog.trees import ChunkedTransactions
from hmi.tenant_bits import PUBLIC, bitmap_of
from tests.worksite import small_spec

_DAY = 86_400.0
_NOW = 1_700_000_000.0


@pytest.fixture
def base_id(database: Database) -> str:
    with database.session() as session:
        return bases.register_base(session, "base", "0" * 64, small_spec()).id


@pytest.fixture
def bits(database: Database) -> dict[str, int]:
    with database.session() as session:
        made = [tenants.create_tenant(session, name) for name in ("acme", "beta", "gamma")]
        return {tenant.name: bitmap_of(tenant.bit) for tenant in made}


def add(database: Database, base_id: str, domain: str, counted: dict[int, int], count: float = 6.0) -> None:
    """Count n-grams with these bitmaps."""
    with database.session() as session:
        place = domains.get_domain(session, domain).id
        part = NgramCounts(base_id, place, list(counted), [count] * len(counted), list(counted.values()))
        frequencies.add(session, [part], half_life_seconds=_DAY, at=_NOW)


def load(database: Database, base_id: str, domain: str = "general") -> dict[int, tuple[float, int]]:
    found = frequencies.load(database, base_id, at=_NOW).get(domain)
    if found is None:
        return {}
    counts = [round(count, 6) for count in found.weights.tolist()]
    return dict(zip(found.ngrams.tolist(), zip(counts, found.tenants.tolist(), strict=True), strict=True))


def delete(database: Database, name: str) -> None:
    with database.session() as session:
        tenants.delete_tenant(session, name)


def test_tenants_have_different_bits_while_there_are_enough(database: Database, bits: dict[str, int]) -> None:
    assert len(set(bits.values())) == 3
    delete(database, "beta")
    with database.session() as session:
        again = bitmap_of(tenants.create_tenant(session, "delta").bit)
    assert again not in bits.values()  # not that of a tenant which is still to be forgotten


def test_counts_lose_a_deleted_tenants_share_and_what_only_it_asked_for(
    database: Database, base_id: str, bits: dict[str, int]
) -> None:
    acme, beta, gamma = bits.values()
    counted = {1: acme, 2: acme | beta, 3: acme | beta | gamma, 4: beta, 5: acme | PUBLIC, 6: 0}
    add(database, base_id, "general", counted)
    before = load(database, base_id)
    delete(database, "acme")
    assert load(database, base_id) == before  # at the next build
    assert trees.forget_tenants(database, settled_seconds=0) == 4
    assert load(database, base_id) == {
        2: (3.0, beta),
        3: (4.0, beta | gamma),
        4: (6.0, beta),
        5: (3.0, PUBLIC),
        6: (6.0, 0),
    }
    assert trees.forget_tenants(database, settled_seconds=0) == 0


def test_a_killed_removal_is_continued_and_nothing_loses_weight_twice(
    database: Database, base_id: str, bits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    acme, beta, _ = bits.values()
    add(database, base_id, "general", dict.fromkeys(range(200), acme | beta))
    delete(database, "acme")
    monkeypatch.setattr(ChunkedTransactions, "rows", 50)

    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trees.forget_tenants(database, settled_seconds=0, progress=stop)
    assert sorted({count for count, _ in load(database, base_id).values()}) == [3.0, 6.0]
    assert trees.forget_tenants(database, settled_seconds=0) == 150
    assert set(load(database, base_id).values()) == {(3.0, beta)}


def test_a_tenant_is_removed_again_until_no_worker_can_bring_it_back(
    database: Database, base_id: str, bits: dict[str, int]
) -> None:
    acme, beta, _ = bits.values()
    delete(database, "acme")
    trees.forget_tenants(database, settled_seconds=3600)
    add(database, base_id, "general", {1: acme, 2: acme | beta})  # a worker flushes late
    assert trees.forget_tenants(database, settled_seconds=3600) == 2
    assert load(database, base_id) == {2: (3.0, beta)}
    with database.session() as session:
        session.execute(update(ForgottenTenant).values(created_at=ForgottenTenant.created_at - 7200))
    trees.forget_tenants(database, settled_seconds=3600)
    with database.session(read_only=True) as session:
        assert session.scalars(select(ForgottenTenant)).all() == []


def test_private_domains_go_with_their_tenant_and_others_become_the_operators(
    database: Database, base_id: str, bits: dict[str, int]
) -> None:
    with database.session() as session:
        owner = session.scalars(select(Tenant.id).where(Tenant.name == "acme")).one()
        for name, parent in (("secret", "general"), ("deeper", "secret"), ("club", "general")):
            domains.create_domain(session, name, parent)
        session.execute(update(Domain).where(Domain.name.in_(["secret", "deeper", "club"])).values(owner_id=owner))
        session.execute(update(Domain).where(Domain.name.in_(["secret", "deeper"])).values(audience=Audience.PRIVATE))
    for name in ("secret", "deeper", "club"):
        add(database, base_id, name, {1: bits["beta"]})
    delete(database, "acme")
    with database.session(read_only=True) as session:
        left = {domain.name: domain.owner for domain in domains.list_domains(session)}
    assert left == {"general": None, "club": None}
    assert trees.forget_tenants(database, settled_seconds=0) == 2
    with database.session(read_only=True) as session:
        assert len(session.scalars(select(NgramFrequency.ngram)).all()) == 1
    assert load(database, base_id, "club") == {1: (6.0, bits["beta"])}
