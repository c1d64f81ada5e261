"""Which users of PostgreSQL may migrate the catalog and serve tenants, and what the others learn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hmi.catalog import Database, upgrade_schema
from hmi.errors import Forbidden, Transient
from tests.integration.catalog.seeding import race
from tests.integration.servers import PostgresServer, postgres_server

_MEMBER = "WITH INHERIT FALSE, SET TRUE"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One on which the role of tenants does not exist yet."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def without_role(server: PostgresServer) -> PostgresServer:
    for name in ("one", "two"):
        server.drop(name)
    server.run("DROP ROLE IF EXISTS hmi_tenant")
    return server


def create(server: PostgresServer, owner: str, *options: str) -> str:
    """The URL of a database `one` for its owner, a new user."""
    server.create("one")
    server.run(f"DROP ROLE IF EXISTS {owner}")
    server.run(f"CREATE ROLE {owner} LOGIN {' '.join(options)}")
    server.run(f"ALTER DATABASE one OWNER TO {owner}")
    return server.url("one", owner)


def check(url: str) -> None:
    database = Database(url)
    try:
        database.check_row_security()
    finally:
        database.dispose()


def test_the_role_is_made_once_when_two_catalogs_of_a_server_are_migrated_together(
    without_role: PostgresServer,
) -> None:
    urls = [without_role.create(name) for name in ("one", "two")]
    assert race([lambda url=url: upgrade_schema(url) for url in urls]) == [None, None]  # type: ignore[misc]
    for url in urls:
        check(url)


def test_an_owner_that_may_create_roles_needs_no_administrator(without_role: PostgresServer) -> None:
    url = create(without_role, "creator", "CREATEROLE")
    upgrade_schema(url)
    upgrade_schema(url)
    check(url)


def test_an_owner_that_may_not_create_roles_learns_what_an_administrator_runs_first(
    without_role: PostgresServer,
) -> None:
    url = create(without_role, "plain")
    with pytest.raises(Forbidden) as caught:
        upgrade_schema(url)
    statements = caught.value.message.rpartition("runs first: ")[2]
    assert statements == f"CREATE ROLE hmi_tenant NOLOGIN; GRANT hmi_tenant TO plain {_MEMBER};"
    for statement in statements.split(";")[:2]:
        without_role.run(statement)
    upgrade_schema(url)
    check(url)


def test_another_user_serves_tenants_only_as_a_member_that_does_not_inherit(postgres: PostgresServer) -> None:
    name = "logins"
    postgres.create(name, template="migrated")
    postgres.run("CREATE ROLE api_login LOGIN")
    url = postgres.url(name, "api_login")
    try:
        with pytest.raises(Transient, match="cannot take the role"):
            check(url)
        postgres.run("GRANT hmi_tenant TO api_login")
        with pytest.raises(Transient, match="inherits the role"):
            check(url)
        postgres.run(f"GRANT hmi_tenant TO api_login {_MEMBER}")
        check(url)
    finally:
        postgres.drop(name)
        postgres.run("DROP ROLE api_login")
