"""Who may use a domain: nothing below is wider than what is above, and no tenant loses a domain that it uses."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from hmi.catalog import OPERATOR, Audience, Database, Principal, Role, Tenant, audiences, domains, models, tenants
from hmi.catalog.registry.domains import DomainView, create_domain, get_domain, move_domain
from hmi.catalog.registry.models import register_model
from hmi.errors import Conflict, Forbidden, HmiError, InvalidInput, NotFound
from hmi.spec import MissPolicy
from tests.integration.catalog.seeding import add_base, add_tenant, principal, race
from tests.integration.catalog.training_seeding import add_job

Change = Callable[[Session, Principal], DomainView]


@pytest.fixture
def acme(database: Database) -> Principal:
    return principal(add_tenant(database, "acme"))


@pytest.fixture
def rival(database: Database) -> Principal:
    return principal(add_tenant(database, "rival"))


@pytest.fixture
def admin(database: Database, acme: Principal, rival: Principal) -> Principal:
    """Domains: reviews for all, clinics of acme for acme and rival, ward of acme below it, acme's private vault."""
    with database.session() as session:
        create_domain(session, "reviews")
        create_domain(session, "clinics", owner="acme", tenants=["rival"])
        create_domain(session, "ward", "clinics")
        create_domain(session, "vault", owner="acme", audience=Audience.PRIVATE)
        operator = tenants.get_tenant(session, OPERATOR)
    return Principal(operator.id, OPERATOR, Role.ADMIN, "")


def _register(session: Session, tenant: Principal, domain: str) -> None:
    policy = MissPolicy.EXACT
    register_model(
        session, tenant.tenant_id, "m", base="mini", domain=domain, miss_policy=policy, artifact=None, summary={}
    )


def test_a_domain_knows_its_audience(database: Database, admin: Principal, acme: Principal, rival: Principal) -> None:
    with database.session(read_only=True) as session:
        found = {view.name: view for view in domains.list_domains(session)}
        bit = tenants.get_tenant(session, "acme").bit
    assert (found["reviews"].audience, found["reviews"].owner, found["reviews"].scope) == ("public", None, "public")
    clinics = found["clinics"]
    assert (clinics.audience, clinics.owner, clinics.owner_bit) == ("tenants", "acme", bit)
    assert clinics.tenants == ("acme", "rival")
    assert found["ward"].scope == clinics.scope == f"tenants:{','.join(sorted((acme.tenant_id, rival.tenant_id)))}"
    assert found["vault"].scope == f"private:{acme.tenant_id}"
    assert found["general"].scope == "public"


def test_a_model_has_the_scope_of_its_domain(
    database: Database, admin: Principal, acme: Principal, rival: Principal
) -> None:
    """What its misses compute serves no model outside; in a domain for all tenants it serves all of these."""
    add_base(database)
    scopes = {}
    for who, domain in ((acme, "vault"), (acme, "clinics"), (rival, "clinics"), (rival, "reviews"), (rival, "general")):
        with database.session() as session:
            _register(session, who, domain)
            model = models.get_model(session, who, f"{who.tenant_name}/m")
            scopes[who.tenant_name, domain] = model.scope
    with database.session(read_only=True) as session:
        ids = {view.name: view.id for view in domains.list_domains(session)}
    assert scopes == {
        ("acme", "vault"): ids["vault"],
        ("acme", "clinics"): ids["clinics"],
        ("rival", "clinics"): ids["clinics"],
        ("rival", "reviews"): "",
        ("rival", "general"): "",
    }


def test_only_what_a_tenant_may_use_is_found(
    database: Database, admin: Principal, acme: Principal, rival: Principal
) -> None:
    third = principal(add_tenant(database, "third"))
    with database.session(read_only=True) as session:
        names = {
            who.tenant_name: [view.name for view in domains.list_domains(session, who)]
            for who in (admin, acme, rival, third)
        }
        for who, name in ((rival, "vault"), (third, "clinics"), (third, "ward"), (third, "nowhere")):
            with pytest.raises(NotFound, match=f"there is no domain '{name}'") as raised:
                get_domain(session, name, tenant_id=who.tenant_id)
            assert (raised.value.code, raised.value.param) == ("domain_not_found", "domain")
    everything = ["clinics", "general", "reviews", "vault", "ward"]
    assert names == {
        "operator": everything,
        "acme": everything,
        "rival": ["clinics", "general", "reviews", "ward"],
        "third": ["general", "reviews"],
    }


def test_no_model_and_no_job_is_made_where_the_tenant_may_not_be(
    database: Database, admin: Principal, acme: Principal, rival: Principal
) -> None:
    add_base(database)
    with database.session() as session:
        _register(session, acme, "vault")
    with pytest.raises(NotFound), database.session() as session:
        _register(session, rival, "vault")
    with database.session(read_only=True) as session:
        assert [model.name for model in models.list_models(session, admin)] == ["acme/m"]
    with pytest.raises(NotFound, match="no domain"):
        add_job(database, _tenant(database, "rival"), base="mini", domain="vault")


def _tenant(database: Database, name: str) -> Tenant:
    with database.session(read_only=True) as session:
        return tenants.get_tenant(session, name)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"audience": Audience.PRIVATE}, InvalidInput),
        ({"audience": Audience.PRIVATE, "owner": "unknown"}, NotFound),
        ({"audience": Audience.TENANTS}, InvalidInput),
        ({"audience": Audience.PUBLIC, "tenants": ["acme"]}, InvalidInput),
        ({"tenants": ["acme", "unknown"]}, NotFound),
        ({"audience": Audience.PUBLIC, "parent": "clinics"}, Conflict),
        ({"tenants": ["acme", "third"], "parent": "clinics"}, Conflict),
        ({"audience": Audience.PRIVATE, "owner": "third", "parent": "clinics"}, Conflict),
        ({"audience": Audience.PRIVATE, "owner": "rival", "parent": "vault"}, Conflict),
        ({"tenants": ["acme", "rival"], "parent": "vault"}, Conflict),
        ({"tenants": ["acme"], "parent": "vault"}, Conflict),
    ],
)
def test_no_domain_is_made_that_is_wider_than_its_parent(
    database: Database, admin: Principal, options: dict[str, object], error: type[HmiError]
) -> None:
    add_tenant(database, "third")
    with pytest.raises(error), database.session() as session:
        create_domain(session, "new", **options)  # type: ignore[arg-type]
    with database.session(read_only=True) as session:
        assert "new" not in domains.parents(session)


def test_a_new_domain_has_its_parents_audience_when_none_is_given(database: Database, admin: Principal) -> None:
    with database.session() as session:
        below = create_domain(session, "below", "vault")
        assert (below.audience, below.owner, below.scope) == ("private", "acme", get_domain(session, "vault").scope)
        narrower = create_domain(session, "own", "ward", owner="rival", audience=Audience.PRIVATE)
        assert narrower.may_use(narrower.owner_id or "")


@pytest.mark.parametrize(("name", "parent"), [("reviews", "clinics"), ("clinics", "vault"), ("reviews", "vault")])
def test_a_domain_is_not_moved_below_a_narrower_one(
    database: Database, admin: Principal, name: str, parent: str
) -> None:
    with pytest.raises(Conflict, match="may use"), database.session() as session:
        move_domain(session, name, parent)
    with database.session() as session:
        assert move_domain(session, "vault", "ward").parent == "ward"
        assert get_domain(session, "vault").scope.startswith("private:")


def test_the_owner_and_the_operator_change_a_list(
    database: Database, admin: Principal, acme: Principal, rival: Principal
) -> None:
    add_tenant(database, "third")
    with database.session() as session:
        assert audiences.allow(session, admin, "clinics", "third").tenants == ("acme", "rival", "third")
        assert audiences.allow(session, acme, "ward", "third").tenants == ("acme", "rival", "third")
        assert audiences.allow(session, acme, "ward", "third").tenants == ("acme", "rival", "third")
        assert audiences.deny(session, acme, "ward", "rival").tenants == ("acme", "third")
        assert audiences.deny(session, admin, "ward", "third").tenants == ("acme",)
        assert audiences.set_audience(session, acme, "clinics", Audience.PUBLIC).scope == "public"
        assert audiences.set_audience(session, admin, "clinics", Audience.TENANTS).tenants == ("acme",)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda session, own: audiences.allow(session, own, "vault", "rival"), Conflict, "private"),
        (lambda session, own: audiences.deny(session, own, "vault", "acme"), Conflict, "private"),
        (lambda session, own: audiences.set_audience(session, own, "vault", Audience.PUBLIC), Conflict, "private"),
        (lambda session, own: audiences.set_audience(session, own, "clinics", Audience.PRIVATE), InvalidInput, "new"),
        (lambda session, own: audiences.deny(session, own, "clinics", "acme"), Conflict, "owns"),
        (lambda session, own: audiences.deny(session, own, "clinics", "third"), NotFound, "list"),
        (lambda session, own: audiences.deny(session, own, "clinics", "unknown"), NotFound, "list"),
        (lambda session, own: audiences.allow(session, own, "clinics", "unknown"), NotFound, "no tenant"),
        (lambda session, own: audiences.allow(session, own, "ward", "third"), Conflict, "above"),
        (lambda session, own: audiences.deny(session, own, "clinics", "rival"), Conflict, "above"),
        (lambda session, own: audiences.set_audience(session, own, "ward", Audience.PUBLIC), Conflict, "above"),
        (lambda session, own: audiences.allow(session, own, "reviews", "rival"), Forbidden, "own"),
        (lambda session, own: audiences.allow(session, own, "nowhere", "rival"), NotFound, "no domain"),
    ],
)
def test_a_change_of_an_audience_is_refused(
    database: Database, admin: Principal, acme: Principal, change: Change, error: type[HmiError], message: str
) -> None:
    add_tenant(database, "third")
    with database.session(read_only=True) as session:
        before = domains.list_domains(session)
    with pytest.raises(error, match=message), database.session() as session:
        change(session, acme)
    with database.session(read_only=True) as session:
        assert domains.list_domains(session) == before


def test_others_than_the_owner_change_nothing(
    database: Database, admin: Principal, acme: Principal, rival: Principal
) -> None:
    with database.session() as session:
        with pytest.raises(Forbidden):
            audiences.deny(session, rival, "clinics", "acme")
        with pytest.raises(NotFound, match="no domain"):
            audiences.allow(session, rival, "vault", "rival")
        for name in ("general", "reviews"):
            with pytest.raises((Forbidden, Conflict)):
                audiences.set_audience(session, rival, name, Audience.TENANTS, ["rival"])
        with pytest.raises(Conflict, match="for ever"):
            audiences.set_audience(session, admin, "general", Audience.TENANTS, ["acme"])


@pytest.mark.parametrize("job", [False, True])
def test_no_tenant_loses_a_domain_that_it_uses(
    database: Database, admin: Principal, rival: Principal, job: bool
) -> None:
    add_base(database)
    if job:
        add_job(database, _tenant(database, "rival"), base="mini", domain="ward")
    else:
        with database.session() as session:
            _register(session, rival, "ward")
    with pytest.raises(Conflict, match="has models or open"), database.session() as session:
        audiences.deny(session, admin, "ward", "rival")
    with pytest.raises(Conflict, match="has models or open"), database.session() as session:
        audiences.set_audience(session, admin, "ward", Audience.TENANTS, [])
    with database.session() as session:
        audiences.set_audience(session, admin, "clinics", Audience.PUBLIC)
        with pytest.raises(Conflict):
            audiences.set_audience(session, admin, "clinics", Audience.TENANTS, [])


def test_no_tenant_is_excluded_while_it_registers(database: Database, admin: Principal, rival: Principal) -> None:
    add_base(database)

    def register() -> None:
        with database.session() as session:
            _register(session, rival, "ward")

    def deny() -> None:
        with database.session() as session:
            audiences.deny(session, admin, "ward", "rival")

    for _ in range(5):
        failed = [each for each in race([register, deny]) if each is not None]
        assert len(failed) == 1
        assert isinstance(failed[0], NotFound | Conflict)
        with database.session() as session:
            used = bool(models.list_models(session, rival))
            assert get_domain(session, "ward").may_use(rival.tenant_id) is used
            if used:
                models.delete_model(session, rival, "rival/m")
            else:
                audiences.allow(session, admin, "ward", "rival")


def test_no_private_domain_is_left_of_a_tenant_that_is_deleted_meanwhile(database: Database, admin: Principal) -> None:
    def create(name: str) -> None:
        with database.session() as session:
            create_domain(session, f"{name}-own", owner=name, audience=Audience.PRIVATE)

    def delete(name: str) -> None:
        with database.session() as session:
            tenants.delete_tenant(session, name)

    for name in ("t1", "t2", "t3", "t4", "t5"):
        add_tenant(database, name)
        race([functools.partial(create, name), functools.partial(delete, name)])
    with database.session(read_only=True) as session:
        private = [view for view in domains.list_domains(session) if view.audience is Audience.PRIVATE]
    assert [view.owner for view in private] == ["acme"]


def test_no_domain_is_wider_than_its_parent_when_changes_race(database: Database, admin: Principal) -> None:
    with database.session() as session:
        create_domain(session, "upper", tenants=["acme", "rival"])
        create_domain(session, "lower", tenants=["acme"])

    def run(change: Callable[[Session], object]) -> Callable[[], None]:
        def call() -> None:
            with database.session() as session:
                change(session)

        return call

    for _ in range(5):
        race(
            [
                run(lambda session: move_domain(session, "lower", "upper")),
                run(lambda session: audiences.allow(session, admin, "lower", "rival")),
                run(lambda session: audiences.deny(session, admin, "upper", "rival")),
            ]
        )
        with database.session() as session:
            found = {view.name: view for view in domains.list_domains(session)}
            assert all(view.parent is None or view.is_within(found[view.parent]) for view in found.values())
            move_domain(session, "lower", "general")
            audiences.allow(session, admin, "upper", "rival")
            audiences.set_audience(session, admin, "lower", Audience.TENANTS, ["acme"])
