"""Statements of a tenant's session without any filter find and change nothing of other tenants, on PostgreSQL."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from sqlalchemy import exc, inspect, select, text, update

from hmi.catalog import Database, Tenant, domains, execute_dml, models
from hmi.catalog.registry.tenants import create_key
from hmi.catalog.schema import (
    AdapterRevision,
    ApiKey,
    Audience,
    Base,
    Domain,
    DomainDelta,
    DomainTenant,
    EventLevel,
    EventType,
    File,
    FrequencyPlace,
    NgramFrequency,
    RegisteredBase,
    Role,
    Shard,
    TenantModel,
    TuningEvent,
)
from hmi.errors import InvalidInput, NotFound
from hmi.spec import MissPolicy
from tests.integration.catalog.seeding import add_base, add_batch, add_tenant
from tests.integration.catalog.training_seeding import add_job

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

_MINE = "tenant_id = :me"
_MY_MODELS = "model_id IN (SELECT id FROM tenant_models WHERE tenant_id = :me)"
_DOMAINS = "('root', 'open', 'shared', 'rival_private', 'rival_list')"
_PLACES = "place_id IN (SELECT id FROM frequency_places WHERE domain_id = 'rival_private')"
# What rival sees, and what of it rival may change, as conditions for the owner of the tables.
_ROWS = {
    "tenants": ("id = :me OR name = 'guest'", "id = :me"),
    "tenant_models": (_MINE, _MINE),
    "adapter_revisions": (_MY_MODELS, _MY_MODELS),
    "files": (_MINE, _MINE),
    "batches": (_MINE, _MINE),
    "shards": (_MINE, _MINE),
    "fine_tuning_jobs": (_MINE, _MINE),
    "fine_tuning_events": (_MINE, _MINE),
    "domains": (f"id IN {_DOMAINS}", "false"),
    "domain_tenants": ("domain_id IN ('shared', 'rival_list')", "false"),
    "domain_deltas": ("domain_id IN ('open', 'rival_private')", "domain_id = 'rival_private'"),
    "frequency_places": ("domain_id = 'rival_private'", "false"),
    "ngram_frequencies": (_PLACES, "false"),
}
_SHARED = {"base_models", "tree_versions"}  # read whole by the requests of tenants


@dataclass(frozen=True)
class World:
    """acme and rival have one of everything each, and the operator domains."""

    database: Database
    acme: Tenant
    rival: Tenant
    model_id: str  # acme's, as the others
    job_id: str
    batch_id: str

    @property
    def as_rival(self) -> Database:
        return self.database.for_tenant(self.rival.id)

    def rows(self, table: str, condition: str = "true") -> list[str]:
        """As the owner of the tables sees them."""
        return _rows(self.database, f"SELECT * FROM {table} WHERE {condition}".replace(":me", f"'{self.rival.id}'"))


def _rows(database: Database, statement: str) -> list[str]:
    with database.session(read_only=True) as session:
        return sorted(map(repr, session.execute(text(statement))))


@pytest.fixture
def world(database: Database) -> World:
    base = add_base(database)
    acme, rival, guest = (add_tenant(database, name) for name in ("acme", "rival", "guest"))
    audiences: list[tuple[str, Tenant | None, Audience]] = [
        ("open", None, Audience.PUBLIC),
        ("closed", None, Audience.TENANTS),
        ("shared", acme, Audience.TENANTS),
        *((f"{each.name}_private", each, Audience.PRIVATE) for each in (acme, rival)),
        *((f"{each.name}_list", each, Audience.TENANTS) for each in (acme, rival)),
    ]
    with database.session() as session:
        session.execute(update(Domain).values(id="root"))
        for name, owner, audience in audiences:
            of = {"parent_id": "root", "owner_id": owner and owner.id, "audience": audience}
            session.add(Domain(id=name, name=name, created_at=0, **of))
        session.flush()
        session.add_all(DomainTenant(domain_id=f"{each.name}_list", tenant_id=guest.id) for each in (acme, rival))
        session.add(DomainTenant(domain_id="closed", tenant_id=acme.id))
        session.add_all(DomainTenant(domain_id="shared", tenant_id=each.id) for each in (acme, rival))
        # On the root acme's own, which it has not published.
        for domain, whose in (("root", acme), ("open", None), ("acme_private", acme), ("rival_private", rival)):
            key = {"base_id": base.id, "domain_id": domain, "owner_id": whose and whose.id}
            session.add(DomainDelta(artifact="a", summary={}, created_at=0, **key))
        for number, domain in enumerate(("root", *(name for name, _, _ in audiences))):
            session.add(FrequencyPlace(id=number, base_id=base.id, domain_id=domain))
            session.add(NgramFrequency(place_id=number, ngram=1, log_weight=0.0))
    made = []
    for tenant in (rival, acme):
        content: dict[str, Any] = {"base": "mini", "domain": "open", "artifact": None, "summary": {}}
        with database.session() as session:
            create_key(session, tenant.id, Role.TENANT)
            model = models.register_model(session, tenant.id, "m", miss_policy=MissPolicy.EXACT, **content)
        made = [model.model_id, add_job(database, tenant).id, add_batch(database, tenant).id]
    return World(database, acme, rival, *made)


def test_a_select_without_a_filter_finds_the_tenants_rows_alone(world: World) -> None:
    for table, (seen, _) in _ROWS.items():
        found = _rows(world.as_rival, f"SELECT * FROM {table}")
        assert found == world.rows(table, seen), table
        assert 0 < len(found) < len(world.rows(table)), table


def test_a_join_without_a_condition_finds_the_tenants_rows_alone(world: World) -> None:
    joined = "SELECT f.tenant_id, b.tenant_id, j.tenant_id, s.tenant_id, count(*) FROM files f, batches b,"
    joined += " fine_tuning_jobs j, shards s GROUP BY 1, 2, 3, 4"
    me = world.rival.id
    assert _rows(world.as_rival, joined) == [repr((me, me, me, me, 4))]
    assert len(_rows(world.database, joined)) == 16


def test_a_domain_has_its_whole_audience_but_names_of_other_tenants_for_its_owner_alone(world: World) -> None:
    with world.database.session() as all_rows, world.as_rival.session() as session:
        for name in ("shared", "rival_list"):
            assert domains.get_domain(session, name).scope == domains.get_domain(all_rows, name).scope
        assert domains.get_domain(session, "shared").tenants == ("rival",)
        assert domains.get_domain(session, "shared").owner is None
        assert domains.get_domain(session, "rival_list").tenants == ("guest",)
        with pytest.raises(NotFound):
            domains.get_domain(session, "acme_list")


def test_each_tenant_finds_its_own_rows_when_they_share_a_connection_and_its_prepared_statements(world: World) -> None:
    for _ in range(12):  # the driver prepares a statement that is repeated, the server caches its plan
        for tenant in (world.acme, world.rival):
            found = _rows(world.database.for_tenant(tenant.id), "SELECT DISTINCT tenant_id FROM files")
            assert found == [repr((tenant.id,))]
        assert len(_rows(world.database, "SELECT DISTINCT tenant_id FROM files")) == 2


@pytest.mark.parametrize("tenant_id", ["", "tenant_unknown"])
def test_a_session_of_no_tenant_finds_no_row_of_a_tenant(world: World, tenant_id: str) -> None:
    for table in (*(table for table, (seen, _) in _ROWS.items() if ":me" in seen), "domain_tenants"):
        assert _rows(world.database.for_tenant(tenant_id), f"SELECT * FROM {table}") == [], table


def test_a_change_without_a_filter_reaches_the_tenants_rows_alone(world: World) -> None:
    before = {table: world.rows(table, f"({mine}) IS NOT TRUE") for table, (_, mine) in _ROWS.items()}
    reached = 0
    for table, (_, mine) in _ROWS.items():
        own = len(world.rows(table, mine))
        for column in inspect(Base.metadata.tables[table]).columns:
            changed = _change(world.as_rival, f'UPDATE {table} SET "{column.name}" = "{column.name}"')
            assert changed <= own, (table, column)
            reached += changed
    for table, (_, mine) in reversed(_ROWS.items()):
        own = len(world.rows(table, mine))
        assert _change(world.as_rival, f"DELETE FROM {table}") <= own, table
    assert {table: world.rows(table, f"({mine}) IS NOT TRUE") for table, (_, mine) in _ROWS.items()} == before
    assert reached > 0
    assert world.rows("tenant_models", _MINE) == world.rows("files", _MINE) == []


def _change(database: Database, statement: str) -> int:
    """The number of rows that were changed; 0 where it is not allowed."""
    try:
        with database.session() as session:
            return execute_dml(session, text(statement))
    except exc.ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
    return 0


def test_no_row_is_added_to_what_is_another_tenants(world: World) -> None:
    for what, row in _foreign_rows(world).items():
        with pytest.raises(exc.ProgrammingError) as caught, world.as_rival.session() as session:
            session.add(row)
        assert isinstance(caught.value.orig, psycopg.errors.InsufficientPrivilege), what


def _foreign_rows(world: World) -> dict[str, Base]:
    acme, rival = world.acme.id, world.rival.id
    with world.database.session() as session:
        base_id = session.scalars(select(RegisteredBase.id)).one()
    file = {"purpose": "batch", "filename": "f", "bytes": 1, "sha256": "0", "path": "p", "created_at": 0}
    shard = {"batch_id": world.batch_id, "first_line": 90, "lines": 1, "offset": 0, "length": 1, "cost": 1}
    event = {"level": EventLevel.INFO, "type": EventType.MESSAGE, "message": "", "created_at": 0}
    model = {"base_id": base_id, "miss_policy": MissPolicy.EXACT, "created_at": 0}
    delta = {"base_id": base_id, "owner_id": rival, "artifact": "b", "summary": {}, "created_at": 0}
    revision = {"model_id": world.model_id, "revision": 9, "summary": {}, "created_at": 0}
    key = {"tenant_id": rival, "role": Role.ADMIN, "secret_sha256": "0", "created_at": 0}
    return {
        "a file": File(id="x", tenant_id=acme, **file),
        "a shard": Shard(id="x", tenant_id=acme, **shard),
        "its own shard of another's batch": Shard(id="x", tenant_id=rival, **shard),
        "an event": TuningEvent(job_id=world.job_id, number=9, id="x", tenant_id=acme, **event),
        "its own event of another's job": TuningEvent(job_id=world.job_id, number=9, id="x", tenant_id=rival, **event),
        "a model": TenantModel(id="x", tenant_id=acme, name="x", domain_id="open", **model),
        "its own model in another's domain": TenantModel(
            id="x", tenant_id=rival, name="x", domain_id="acme_private", **model
        ),
        "a revision of another's model": AdapterRevision(id="x", **revision),
        "itself to another's domain": DomainTenant(domain_id="acme_list", tenant_id=rival),
        "itself to the operator's domain": DomainTenant(domain_id="closed", tenant_id=rival),
        "a delta to another's domain": DomainDelta(domain_id="acme_list", **delta),
        "a delta to a public domain": DomainDelta(domain_id="general", **delta),
        "a key": ApiKey(id="x", **key),
        "a tenant": Tenant(id="x", name="x", created_at=0),
        "a domain": Domain(id="x", name="x", parent_id="root", owner_id=rival, created_at=0),
    }


def test_every_table_that_tenants_may_read_has_policies(database: Database) -> None:
    readable = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    readable += " AND has_any_column_privilege('hmi_tenant', oid, 'SELECT, INSERT, UPDATE, REFERENCES')"
    with database.session() as session:
        assert set(session.scalars(text(readable))) == set(_ROWS) | _SHARED
        assert set(session.scalars(text(f"{readable} AND NOT relrowsecurity"))) == _SHARED
        assert list(session.scalars(text("SELECT proname FROM pg_proc WHERE prosecdef"))) == ["hmi_usable_domains"]


@pytest.mark.parametrize("ending", ["commit", "rollback", "error"])
def test_a_connection_is_the_owners_again_when_a_tenants_transaction_has_ended(database: Database, ending: str) -> None:
    state = text("SELECT current_user, current_setting('hmi.tenant_id', true), pg_backend_pid()")
    with contextlib.suppress(RuntimeError, InvalidInput), database.for_tenant("tenant_x").session() as session:
        role, tenant_id, backend = session.execute(state).one()
        with session.begin_nested() as savepoint:
            savepoint.rollback()
        assert session.scalar(text("SELECT current_user")) == "hmi_tenant"
        if ending == "rollback":
            raise RuntimeError
        if ending == "error":
            session.execute(text("SELECT 1 / 0"))
    assert (role, tenant_id) == ("hmi_tenant", "tenant_x")
    with database.session() as session:
        assert tuple(session.execute(state).one()) == ("postgres", "", backend)
