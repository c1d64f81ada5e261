"""The migrations build what the tables say, on both databases."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, select

from hmi.catalog import Audience, Database, Shard, domains, is_schema_current, trees, upgrade_schema
from hmi.catalog.registry.domains import parents
from hmi.catalog.registry.tenants import list_tenants
from hmi.catalog.trees.frequencies import load
from hmi.errors import Conflict, Transient
from tests.integration.catalog.seeding import race
from tests.integration.servers import PostgresServer

_INI = str(Path(__file__).parents[4] / "alembic.ini")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'catalog.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    server.drop("empty")
    return server.create("empty")


def test_migrations_match_the_tables_when_checked(database: Database) -> None:
    config = Config(_INI)
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.check(config)  # raises where autogenerate would still change something


def test_the_check_finds_a_difference_when_there_is_one(database: Database) -> None:
    config = Config(_INI)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE tenants ADD COLUMN surplus INTEGER")
        config.attributes["connection"] = connection
        with pytest.raises(Exception, match="surplus"):
            command.check(config)


def test_the_roots_exist_when_migrated(database: Database) -> None:
    with database.session() as session:
        assert parents(session) == {"general": None}
        assert [tenant.name for tenant in list_tenants(session)] == ["operator"]


def test_upgrade_is_done_once_when_several_start_together(empty_url: str) -> None:
    assert race([lambda: upgrade_schema(empty_url)] * 5) == [None] * 5
    database = Database(empty_url)
    assert is_schema_current(database)
    with database.session() as session:
        assert len(list_tenants(session)) == 1
    database.dispose()


def test_an_empty_database_says_what_to_do_when_it_is_used(empty_url: str) -> None:
    database = Database(empty_url)
    assert not is_schema_current(database)
    with pytest.raises(Transient, match="hmi db upgrade"), database.session() as session:
        list_tenants(session)
    database.dispose()


def test_no_table_remains_when_downgraded(database: Database) -> None:
    config = Config(_INI)
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with database.engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) == {"alembic_version"}


def test_counts_are_carried_over_when_they_move_to_the_narrow_table(empty_url: str) -> None:
    database, config = Database(empty_url), Config(_INI)
    old = (
        "INSERT INTO base_models (id, name, artifact, spec, frequency_landmark, frequency_half_life, created_at)"
        " VALUES ('base_1', 'mini', 'a', '{}', 1000, 50, 0)",
        "INSERT INTO ngram_frequencies SELECT 'base_1', id, 7, 12.0 FROM domains",
        "INSERT INTO ngram_frequencies SELECT 'base_1', id, 9, 0.5 FROM domains",
    )
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in old:
            connection.exec_driver_sql(statement)
        command.upgrade(config, "head")
    found = load(database, "base_1", at=1050.0)["general"]  # a half-life after the landmark
    assert found.ngrams.tolist() == [7, 9]
    assert found.weights.tolist() == pytest.approx([6.0, 0.25])
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        command.upgrade(config, "head")
    assert load(database, "base_1") == {}
    database.dispose()


def test_a_shard_that_waits_costs_its_lines_when_costs_are_new(empty_url: str) -> None:
    database, config = Database(empty_url), Config(_INI)
    old = (
        "INSERT INTO batches (id, tenant_id, endpoint, completion_window, input_file_id, input_path, status, "
        " total_lines, attributes, errors, created_at, expires_at)"
        " SELECT 'batch_1', id, '/v1/classify', '24h', 'file-1', 'x', 'in_progress', 7, '{}', '[]', 0, 1 FROM tenants",
        'INSERT INTO shards (id, batch_id, tenant_id, first_line, lines, "offset", length, state, attempt, failures,'
        " completed, failed, input_tokens)"
        " SELECT 'shard_1', 'batch_1', id, 0, 7, 0, 70, 'pending', 0, 0, 0, 0, 0 FROM tenants",
    )
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for statement in old:
            connection.exec_driver_sql(statement)
        command.upgrade(config, "head")
    with database.session() as session:
        (shard,) = session.scalars(select(Shard))
    assert (shard.cost, shard.output_tokens) == (7, 0)
    database.dispose()


def test_counts_of_unknown_origin_are_kept_and_trees_are_rebuilt_once(empty_url: str) -> None:
    database, config = Database(empty_url), Config(_INI)
    flush = (  # as a worker of the version before writes counts
        "INSERT INTO ngram_frequencies AS f (place_id, ngram, log_weight) VALUES (1, {}, 0.0)"
        " ON CONFLICT (place_id, ngram) DO UPDATE SET log_weight = excluded.log_weight"
    )
    tree = (
        "INSERT INTO tree_versions (base_id, number, status, tables, report, created_at, published_at)"
        " VALUES ('base_1', 4, 'ready', '{\"general\": \"t\"}', '{}', 5, 6)"
    )
    old = (
        "INSERT INTO base_models (id, name, artifact, spec, tree_number, frequency_landmark, frequency_half_life,"
        " created_at) VALUES ('base_1', 'mini', 'a', '{}', 4, 1000, 50, 0), ('base_2', 'bare', 'b', '{}', NULL, NULL,"
        " NULL, 0)",
        "INSERT INTO frequency_places (base_id, domain_id, rows_bound) SELECT 'base_1', id, 1 FROM domains",
        *(
            f"INSERT INTO tenants (id, name, weight, served_from, served_to, created_at)"
            f" VALUES ('tenant_{number}', 't{number}', 1, 0, 0, {number})"
            for number in range(1, 64)
        ),
        flush.format(7),
        tree,
    )
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        for statement in old:
            connection.exec_driver_sql(statement)
        command.upgrade(config, "head")
        connection.exec_driver_sql(flush.format(9))
    found = load(database, "base_1", at=1000.0)["general"]
    assert (found.ngrams.tolist(), found.tenants.tolist()) == ([7, 9], [0, 0])
    with database.session() as session:
        published = trees.published(session, "base_1")
        assert published is not None
        assert (published.number, trees.requested_version(session, "base_1")) == (4, 5)
        assert trees.requested_version(session, "base_2") is None
        bits = Counter(tenant.bit for tenant in list_tenants(session))
        assert (len(bits), max(bits.values())) == (62, 2)
        assert all(domain.audience is Audience.PUBLIC for domain in domains.list_domains(session))
        trees.publish(session, "base_1", trees.begin_build(session, "base_1", 60), {}, {"min_tenants": 3})
        with pytest.raises(Conflict, match="any number of tenants"):
            trees.rollback(session, "base_1", 4, min_tenants=3)
    database.dispose()
