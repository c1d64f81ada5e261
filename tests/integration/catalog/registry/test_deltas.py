"""Domain deltas: whose they are, and which one a model runs with."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from hmi.catalog import OPERATOR, Audience, Database, Principal, Role, Tenant, domains, models, tenants
from hmi.catalog.registry.deltas import (
    delta_artifacts,
    get_delta,
    list_deltas,
    nearest_deltas,
    publish_delta,
    remove_delta,
    set_delta,
)
from hmi.catalog.registry.domains import move_domain
from hmi.catalog.registry.models import register_model
from hmi.errors import Conflict, Forbidden, InvalidInput, NotFound
from hmi.spec import MissPolicy
from tests.integration.catalog.seeding import add_base, add_tenant, principal, race


def _plant(database: Database) -> None:
    with database.session() as session:
        domains.create_domain(session, "reviews")
        domains.create_domain(session, "movies", "reviews")
        domains.create_domain(session, "news")


def _register(database: Database, tenant: Tenant, name: str, domain: str, base: str = "mini") -> None:
    with database.session() as session:
        register_model(
            session,
            tenant.id,
            name,
            base=base,
            domain=domain,
            miss_policy=MissPolicy.EXACT,
            artifact=None,
            summary={},
        )


def _deltas(database: Database, tenant: Tenant, *names: str) -> list[str | None]:
    with database.session(read_only=True) as session:
        found = models.resolve(session, [f"acme/{name}" for name in names], principal(tenant))
    return [found[f"acme/{name}"].delta for name in names]


def test_a_delta_is_known_when_set_and_replaced_when_set_again(database: Database) -> None:
    base, other = add_base(database), add_base(database, "other", "b" * 64)
    _plant(database)
    with database.session() as session:
        set_delta(session, base.id, "reviews", "d" * 64, {"rank": 4})
        again = set_delta(session, base.id, "reviews", "e" * 64, {"rank": 8})
        assert (again.domain, again.artifact, again.summary) == ("reviews", "e" * 64, {"rank": 8})
        assert again.created_at > 0
        assert get_delta(session, base.id, "reviews") == again
        assert list_deltas(session, base.id) == [again]
        assert delta_artifacts(session, base.id) == {"reviews": "e" * 64}
        assert delta_artifacts(session, other.id) == {}


def test_what_is_missing_is_named_when_a_delta_is_set_or_removed(database: Database) -> None:
    base = add_base(database)
    _plant(database)
    with database.session() as session:
        with pytest.raises(NotFound, match="nowhere"):
            set_delta(session, base.id, "nowhere", "d" * 64, {})
        with pytest.raises(InvalidInput):
            set_delta(session, base.id, "news", "d" * 64, {"loss": float("nan")})
        with pytest.raises(NotFound, match="no delta of its own"):
            remove_delta(session, base.id, "news")
    with pytest.raises(Conflict), database.session() as session:
        set_delta(session, "base_unknown", "news", "d" * 64, {})


def test_a_model_runs_with_the_nearest_delta_of_its_ancestors(database: Database) -> None:
    base, acme = add_base(database), add_tenant(database)
    add_base(database, "other", "b" * 64)
    _plant(database)
    for name in ("general", "reviews", "movies", "news"):
        _register(database, acme, name, name)
    _register(database, acme, "elsewhere", "movies", base="other")
    names = ("general", "reviews", "movies", "news", "elsewhere")
    assert _deltas(database, acme, *names) == [None] * 5
    with database.session() as session:
        set_delta(session, base.id, "reviews", "r" * 64, {})
    assert _deltas(database, acme, *names) == [None, "r" * 64, "r" * 64, None, None]
    with database.session() as session:
        set_delta(session, base.id, "movies", "m" * 64, {})
        set_delta(session, base.id, "general", "g" * 64, {})
    assert _deltas(database, acme, *names) == ["g" * 64, "r" * 64, "m" * 64, "g" * 64, None]
    with database.session() as session:
        remove_delta(session, base.id, "movies")
        move_domain(session, "movies", "news")
    assert _deltas(database, acme, *names) == ["g" * 64, "r" * 64, "g" * 64, "g" * 64, None]


def test_few_queries_run_when_many_models_are_resolved(database: Database) -> None:
    base, acme = add_base(database), add_tenant(database)
    _plant(database)
    for number in range(20):
        _register(database, acme, f"m{number}", "movies")
    with database.session() as session:
        set_delta(session, base.id, "reviews", "r" * 64, {})
    asked: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *each: asked.append(each[2]))
    with database.session(read_only=True) as session:
        found = models.resolve(session, [f"acme/m{number}" for number in range(20)], principal(acme))
    assert {model.delta for model in found.values()} == {"r" * 64}
    assert sum("SELECT" in each for each in asked) == 3


def test_no_query_runs_when_no_place_is_given(database: Database) -> None:
    with database.session(read_only=True) as session:
        assert nearest_deltas(session, []) == {}


def test_one_delta_remains_when_several_are_set_concurrently(database: Database) -> None:
    base = add_base(database)
    _plant(database)

    def give(digest: str) -> str:
        with database.session() as session:
            return set_delta(session, base.id, "news", digest, {}).artifact

    digests = [letter * 64 for letter in "abcd"]
    assert race([lambda d=d: give(d) for d in digests]) == digests  # type: ignore[misc]
    with database.session() as session:
        assert delta_artifacts(session, base.id)["news"] in digests


@pytest.fixture
def owners(database: Database) -> dict[str, Principal]:
    """Tenants with a private domain each, `acme-own` and `rival-own`, and one below acme's."""
    found = {name: principal(add_tenant(database, name)) for name in ("acme", "rival")}
    _plant(database)
    with database.session() as session:
        for name in found:
            domains.create_domain(session, f"{name}-own", owner=name, audience=Audience.PRIVATE)
        domains.create_domain(session, "acme-below", "acme-own")
        operator = tenants.get_tenant(session, OPERATOR)
    return found | {OPERATOR: Principal(operator.id, OPERATOR, Role.ADMIN, "")}


def test_a_tenants_own_delta_stays_on_its_private_domains_until_it_is_published(
    database: Database, owners: dict[str, Principal]
) -> None:
    base, other, artifact = add_base(database), add_base(database, "other", "b" * 64), "d" * 64
    with database.session() as session:
        made = set_delta(session, base.id, "acme-own", artifact, {}, principal=owners["acme"])
        assert (made.owner, made.is_published) == ("acme", False)
        # As the operator's or another tenant's, on any base: the weights are the same.
        for at, domain, owner in (
            (base, "reviews", None),
            (base, "general", "acme"),
            (other, "rival-own", None),
            (other, "rival-own", "rival"),
            (base, "news", "rival"),
        ):
            with pytest.raises(Conflict, match="not published"):
                set_delta(session, at.id, domain, artifact, {}, owner=owner)
        # Whatever the operator states, it stays the tenant's.
        assert set_delta(session, base.id, "acme-own", artifact, {}).owner == "acme"
        assert set_delta(session, base.id, "acme-below", artifact, {}).owner == "acme"
        with pytest.raises(Forbidden):
            publish_delta(session, owners[OPERATOR], base.id, "acme-own")
        assert publish_delta(session, owners["acme"], base.id, "acme-own").is_published
        assert get_delta(session, base.id, "acme-below").is_published
        assert set_delta(session, base.id, "reviews", artifact, {}, owner="acme").is_published
        assert set_delta(session, base.id, "acme-own", artifact, {}, principal=owners["acme"]).is_published


def test_an_operators_delta_of_one_tenants_text_needs_that_tenants_private_domain(
    database: Database, owners: dict[str, Principal]
) -> None:
    base = add_base(database)
    with database.session() as session:
        for domain in ("reviews", "rival-own"):
            with pytest.raises(Conflict, match="not published"):
                set_delta(session, base.id, domain, "d" * 64, {}, owner="acme")
        with pytest.raises(NotFound, match="no tenant"):
            set_delta(session, base.id, "reviews", "d" * 64, {}, owner="unknown")
        assert set_delta(session, base.id, "acme-own", "d" * 64, {}, owner="acme").owner == "acme"
        assert set_delta(session, base.id, "acme-own", "e" * 64, {}).owner is None


def test_a_tenant_sets_and_lists_deltas_of_its_private_domains_alone(
    database: Database, owners: dict[str, Principal]
) -> None:
    base, artifact = add_base(database), "d" * 64
    with database.session() as session:
        set_delta(session, base.id, "reviews", "o" * 64, {})
        set_delta(session, base.id, "acme-own", artifact, {}, principal=owners["acme"])
        for domain, error in (("reviews", Forbidden), ("acme-own", NotFound), ("nowhere", NotFound)):
            with pytest.raises(error):
                set_delta(session, base.id, domain, "e" * 64, {}, principal=owners["rival"])
            with pytest.raises(error):
                publish_delta(session, owners["rival"], base.id, domain)
        # The same weights of another tenant are no secret that this one could find out.
        assert set_delta(session, base.id, "rival-own", artifact, {}, principal=owners["rival"]).owner == "rival"
        listed = {who: [each.domain for each in list_deltas(session, base.id, owners[who])] for who in owners}
    assert listed == {
        "acme": ["acme-own"],
        "rival": ["rival-own"],
        "operator": ["acme-own", "reviews", "rival-own"],
    }
