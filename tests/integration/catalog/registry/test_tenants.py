"""Tenants, their keys, and what is left when one goes."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from hmi.catalog import Batch, Database, File, Role, Shard, database_time, mint_key, shards, tenants
from hmi.catalog.registry.keys import KeyText
from hmi.catalog.registry.models import register_model
from hmi.catalog.schema import AdapterRevision, ApiKey, Base, TenantModel
from hmi.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from hmi.spec import MissPolicy
from tests.integration.catalog.seeding import add_base, add_batch, add_tenant, end, queue, race, take


def test_a_key_opens_its_tenant_when_it_is_shown(database: Database) -> None:
    acme = add_tenant(database)
    with database.session() as session:
        key, plaintext = tenants.create_key(session, acme.id, Role.TENANT, label="ci")
        assert key.secret_sha256 not in plaintext
    with database.session(read_only=True) as session:
        found = tenants.authenticate(session, plaintext)
    assert found == tenants.Principal(acme.id, "acme", Role.TENANT, key.id)
    assert not found.is_admin


def test_no_key_opens_anything_when_it_is_wrong_expired_or_revoked(database: Database) -> None:
    acme = add_tenant(database)
    with database.session() as session:
        _, expired = tenants.create_key(session, acme.id, Role.TENANT, expires_at=database_time(session) - 1)
        known, valid = tenants.create_key(session, acme.id, Role.TENANT, expires_at=database_time(session) + 1000)
        revoked, revoked_text = tenants.create_key(session, acme.id, Role.TENANT)
        tenants.revoke_key(session, acme.id, revoked.id)
        tenants.revoke_key(session, acme.id, revoked.id)
        same_id = KeyText(known.id, mint_key().secret).plaintext
        assert tenants.authenticate(session, valid).tenant_name == "acme"
        messages = set()
        for plaintext in (expired, revoked_text, same_id, mint_key().plaintext, "", "Bearer x", valid[:-1]):
            with pytest.raises(Unauthenticated) as caught:
                tenants.authenticate(session, plaintext)
            messages.add(caught.value.message)
    assert len(messages) == 1


def test_a_key_cannot_be_revoked_when_it_is_anothers(database: Database) -> None:
    acme, rival = add_tenant(database), add_tenant(database, "rival")
    with database.session() as session:
        key, plaintext = tenants.create_key(session, acme.id, Role.TENANT)
        with pytest.raises(NotFound):
            tenants.revoke_key(session, rival.id, key.id)
        assert tenants.list_keys(session, rival.id) == []
        assert [each.id for each in tenants.list_keys(session, acme.id)] == [key.id]
        tenants.authenticate(session, plaintext)


def test_admin_keys_belong_to_the_operator_alone_when_created(database: Database) -> None:
    acme = add_tenant(database)
    with database.session() as session:
        operator = tenants.get_tenant(session, "operator")
        with pytest.raises(InvalidInput):
            tenants.create_key(session, acme.id, Role.ADMIN)
        with pytest.raises(InvalidInput):
            tenants.create_key(session, operator.id, Role.TENANT)
        _, plaintext = tenants.create_key(session, operator.id, Role.ADMIN)
        assert tenants.authenticate(session, plaintext).is_admin
        assert tenants.principal_of(session, operator.id).is_admin
        assert not tenants.principal_of(session, acme.id).is_admin


def test_one_key_is_made_known_when_several_processes_adopt_it(database: Database) -> None:
    plaintext = mint_key().plaintext

    def adopt() -> str:
        with database.session() as session:
            return tenants.register_admin_key(session, plaintext).id

    assert len(set(race([adopt] * 4))) == 1
    with database.session() as session:
        assert tenants.authenticate(session, plaintext).is_admin


def test_a_key_is_not_adopted_when_its_id_is_taken_or_it_is_no_key(database: Database) -> None:
    acme = add_tenant(database)
    with database.session() as session:
        key, _ = tenants.create_key(session, acme.id, Role.TENANT)
        with pytest.raises(Conflict):
            tenants.register_admin_key(session, KeyText(key.id, mint_key().secret).plaintext)
        with pytest.raises(InvalidInput):
            tenants.register_admin_key(session, "password")


def test_a_revoked_key_stays_so_when_adopted_again(database: Database) -> None:
    plaintext = mint_key().plaintext
    with database.session() as session:
        key = tenants.register_admin_key(session, plaintext)
        tenants.revoke_key(session, key.tenant_id, key.id)
    with database.session() as session:
        tenants.register_admin_key(session, plaintext)
        with pytest.raises(Unauthenticated):
            tenants.authenticate(session, plaintext)


def test_a_name_is_taken_once_when_two_requests_race(database: Database) -> None:
    outcomes = race([lambda: add_tenant(database)] * 4)
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 3


@pytest.mark.parametrize(("name", "weight"), [("Acme", 1), ("", 1), ("acme", 0), ("acme", -1), ("a\0b", 1)])
def test_a_tenant_is_refused_when_name_or_weight_is_wrong(database: Database, name: str, weight: int) -> None:
    with pytest.raises(InvalidInput):
        add_tenant(database, name, weight=weight)


def test_all_that_is_a_tenants_goes_and_nothing_else_when_it_is_deleted(database: Database) -> None:
    base = add_base(database)
    for name in ("acme", "rival"):
        tenant = add_tenant(database, name)
        with database.session() as session:
            tenants.create_key(session, tenant.id, Role.TENANT)
            register_model(
                session,
                tenant.id,
                "m",
                base=base.name,
                domain="general",
                miss_policy=MissPolicy.EXACT,
                artifact=None,
                summary={},
            )
        add_batch(database, tenant, shard_count=3)
    messages = queue(database)
    for message in messages:
        assert take(database, message) is not None
    assert end(database, messages[0])
    with database.session() as session:
        acme = tenants.get_tenant(session, "acme")
        path = session.scalars(select(File.path).where(File.tenant_id == acme.id)).one()
        first = session.get_one(Shard, messages[0].job_id)
        expected = {path} | ({"out"} if first.tenant_id == acme.id else set())
        mine = set(session.scalars(select(Shard.id).where(Shard.tenant_id == acme.id)))
    with database.session() as session:
        deleted = tenants.delete_tenant(session, "acme")
    assert (deleted.tenant_id, set(deleted.paths)) == (acme.id, expected)
    with database.session() as session:
        for table in (ApiKey, TenantModel, File, Batch, Shard):
            owners = set(session.scalars(select(table.tenant_id)))
            assert owners == {tenants.get_tenant(session, "rival").id}, table
        assert session.scalar(select(func.count()).select_from(AdapterRevision)) == 1
        for message in messages:
            if message.job_id in mine:  # the worker that still runs it comes too late
                assert not shards.release(session, message.job_id, message.attempt, reason="x", count_failure=False)


def test_every_table_with_a_tenants_rows_cascades_when_the_tenant_goes() -> None:
    for table in Base.metadata.tables.values():
        for key in table.foreign_keys:
            if key.column.table.name == "tenants":
                assert key.ondelete == "CASCADE", table


def test_the_operator_cannot_be_deleted(database: Database) -> None:
    with database.session() as session:
        with pytest.raises(Forbidden):
            tenants.delete_tenant(session, "operator")
        with pytest.raises(NotFound):
            tenants.delete_tenant(session, "missing")
