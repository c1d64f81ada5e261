"""Base models and tenants' models: revisions, and who sees what."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hmi.catalog import Database, RegisteredModel, Tenant, bases, domains, models, tenants
from hmi.catalog.registry.bases import get_base, list_bases, spec_of
from hmi.catalog.registry.models import delete_model, get_model, list_models, register_model
from hmi.errors import Conflict, InvalidInput, NotFound
from hmi.spec import MissPolicy
from tests.integration.catalog.seeding import SPEC, add_base, add_tenant, principal, race


def _register(database: Database, tenant: Tenant, name: str = "sentiment", **changes: Any) -> RegisteredModel:
    arguments: dict[str, Any] = {
        "base": "mini",
        "domain": "general",
        "miss_policy": MissPolicy.EXACT,
        "artifact": "b" * 64,
        "summary": {"kind": "lora", "rank": 8},
    }
    with database.session() as session:
        return register_model(session, tenant.id, name, **{**arguments, **changes})


def test_a_base_is_one_when_registered_again(database: Database) -> None:
    base = add_base(database)
    assert add_base(database).id == base.id
    with database.session() as session:
        assert spec_of(get_base(session, "mini")) == SPEC
        assert [each.name for each in list_bases(session)] == ["mini"]
        with pytest.raises(NotFound):
            get_base(session, "maxi")


def test_a_base_keeps_its_weights_when_others_claim_its_name(database: Database) -> None:
    add_base(database)
    with database.session() as session, pytest.raises(Conflict):
        bases.register_base(session, "mini", "f" * 64, dataclasses.replace(SPEC, k=1))
    with database.session() as session:
        assert get_base(session, "mini").artifact == "a" * 64


def test_a_model_says_all_that_serving_needs_when_registered(database: Database) -> None:
    base, acme = add_base(database), add_tenant(database)
    model = _register(database, acme)
    assert dataclasses.replace(model, model_id="", created_at=0.0, tenant_bit=0) == RegisteredModel(
        model_id="",
        name="acme/sentiment",
        tenant_id=acme.id,
        tenant="acme",
        base_id=base.id,
        base_name="mini",
        base_artifact="a" * 64,
        domain="general",
        artifact="b" * 64,
        delta=None,
        miss_policy=MissPolicy.EXACT,
        revision=1,
        summary={"kind": "lora", "rank": 8},
        created_at=0.0,
    )


def test_a_revision_is_added_only_when_the_content_differs(database: Database) -> None:
    add_base(database)
    acme = add_tenant(database)
    with database.session() as session:
        domains.create_domain(session, "news")
    first = _register(database, acme)
    assert _register(database, acme) == first
    assert _register(database, acme, artifact="c" * 64).revision == 2
    assert _register(database, acme, artifact="b" * 64).revision == 3
    assert _register(database, acme, domain="news").revision == 4
    assert _register(database, acme, domain="news", miss_policy=MissPolicy.BACKOFF).revision == 5
    last = _register(database, acme, artifact=None)
    assert (last.revision, last.artifact, last.model_id) == (6, None, first.model_id)


def test_every_upload_is_a_revision_of_one_model_when_they_race(database: Database) -> None:
    add_base(database)
    acme = add_tenant(database)
    outcomes = race([lambda n=n: _register(database, acme, artifact=str(n) * 64) for n in range(5)])  # type: ignore[misc]
    models = [outcome for outcome in outcomes if isinstance(outcome, RegisteredModel)]
    assert sorted(model.revision for model in models) == [1, 2, 3, 4, 5]
    with database.session() as session:
        served = get_model(session, principal(acme), "acme/sentiment")
    assert served == max(models, key=lambda model: model.revision)


def test_what_is_missing_is_named_when_a_model_is_registered(database: Database) -> None:
    add_base(database)
    acme = add_tenant(database)
    with pytest.raises(NotFound, match="base model 'maxi'"):
        _register(database, acme, base="maxi")
    with pytest.raises(NotFound, match="domain 'news'"):
        _register(database, acme, domain="news")
    for name in ("a/b", "", "x" * 65):
        with pytest.raises(InvalidInput):
            _register(database, acme, name)


def test_a_tenant_finds_its_own_models_alone_when_it_asks(database: Database) -> None:
    add_base(database)
    acme, rival = add_tenant(database), add_tenant(database, "rival")
    mine, theirs = _register(database, acme), _register(database, rival)
    names = ["acme/sentiment", "rival/sentiment", "acme/none", "sentiment", "", "a/b/c", "acme/\0", "/"]
    with database.session(read_only=True) as session:
        assert models.resolve(session, names, principal(acme)) == {"acme/sentiment": mine}
        assert list_models(session, principal(rival)) == [theirs]
        assert list_models(session, principal(rival), tenant="acme") == []
        foreign = _message(session, principal(acme), "rival/sentiment")
        assert foreign == _message(session, principal(acme), "rival/nothing!").replace("nothing!", "sentiment")
        admin = tenants.principal_of(session, tenants.get_tenant(session, "operator").id)
        assert models.resolve(session, names, admin) == {"acme/sentiment": mine, "rival/sentiment": theirs}
        assert list_models(session, admin) == [mine, theirs]
        assert list_models(session, admin, tenant="acme") == [mine]


def _message(session: Any, who: Any, name: str) -> str:
    with pytest.raises(NotFound) as caught:
        get_model(session, who, name)
    return caught.value.message


def test_many_names_are_resolved_when_one_query_could_not_hold_them(database: Database) -> None:
    add_base(database)
    acme = add_tenant(database)
    wanted = {_register(database, acme, f"m{index}").name for index in range(3)}
    names = [f"acme/x{index}" for index in range(1500)] + sorted(wanted)
    with database.session(read_only=True) as session:
        assert set(models.resolve(session, names, principal(acme))) == wanted


def test_a_model_is_gone_when_its_owner_deletes_it(database: Database) -> None:
    add_base(database)
    acme, rival = add_tenant(database), add_tenant(database, "rival")
    model = _register(database, acme)
    with database.session() as session, pytest.raises(NotFound):
        delete_model(session, principal(rival), "acme/sentiment")
    with database.session() as session:
        assert delete_model(session, principal(acme), "acme/sentiment") == model
        assert list_models(session, principal(acme)) == []
    assert _register(database, acme).revision == 1
