"""Transactions, the clock, and what a driver's errors become."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from hmi.catalog import Database, Tenant, database_time, execute_dml, tenants
from hmi.catalog.database import now
from hmi.catalog.registry.tenants import create_tenant, list_tenants
from hmi.catalog.schema import Domain
from hmi.errors import Conflict, Corrupt, InvalidInput, NotFound, StorageFull, Transient
from tests.integration.catalog.seeding import add_tenant, race

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def test_every_write_lands_when_many_threads_write(database: Database) -> None:
    tenant = add_tenant(database)

    def add_to_weight() -> None:
        for _ in range(10):
            with database.session() as session:
                execute_dml(session, update(Tenant).where(Tenant.id == tenant.id).values(weight=Tenant.weight + 1))

    assert race([add_to_weight] * 8) == [None] * 8
    with database.session() as session:
        assert tenants.get_tenant(session, "acme").weight == 81


def test_no_write_is_lost_when_threads_read_before_they_write(database: Database) -> None:
    tenant = add_tenant(database)

    def read_and_write() -> None:
        for _ in range(5):
            with database.session() as session:
                row = session.scalars(select(Tenant).where(Tenant.id == tenant.id).with_for_update()).one()
                row.weight += 1

    assert race([read_and_write] * 6) == [None] * 6
    with database.session() as session:
        assert tenants.get_tenant(session, "acme").weight == 31


def test_a_reader_does_not_wait_when_a_writer_is_at_work(database: Database) -> None:
    with database.session() as writer:
        create_tenant(writer, "acme")
        with database.session(read_only=True) as reader:
            assert [tenant.name for tenant in list_tenants(reader)] == ["operator"]


def test_nothing_is_written_when_the_session_is_read_only(database: Database) -> None:
    with pytest.raises(Transient), database.session(read_only=True) as session:
        create_tenant(session, "acme")
    add_tenant(database)  # the same connection may write again


def test_nothing_is_kept_when_the_block_raises(database: Database) -> None:
    with pytest.raises(RuntimeError), database.session() as session:
        create_tenant(session, "acme")
        raise RuntimeError
    with pytest.raises(NotFound), database.session() as session:
        tenants.get_tenant(session, "acme")


def test_rows_are_readable_when_the_session_has_ended(database: Database) -> None:
    tenant = add_tenant(database)
    assert (tenant.name, tenant.weight, tenant.served_to) == ("acme", 1, 0.0)


def test_the_clock_is_unix_time_when_asked(database: Database) -> None:
    before = time.time()
    with database.session() as session:
        read = database_time(session)
        kept = session.scalars(select(now())).one()
    assert isinstance(read, float)
    assert before - 0.01 <= read <= kept <= time.time() + 0.01


def test_the_clock_moves_on_when_a_transaction_lasts(database: Database) -> None:
    with database.session() as session:
        first = database_time(session)
        deadline = time.monotonic() + 10
        while database_time(session) == first:
            assert time.monotonic() < deadline


def test_a_broken_constraint_is_a_conflict_when_it_reaches_the_end(database: Database) -> None:
    add_tenant(database)
    with pytest.raises(Conflict), database.session() as session:
        session.add(Tenant(id="t", name="acme", created_at=0.0))


def test_a_foreign_key_holds_when_a_row_is_needed(database: Database) -> None:
    with pytest.raises(Conflict), database.session() as session:
        session.add(Domain(id="d", name="lost", parent_id="missing", created_at=0.0))


def test_a_drivers_error_holds_no_values_when_a_statement_fails(database: Database) -> None:
    add_tenant(database)
    with pytest.raises(Conflict) as caught, database.session() as session:
        session.add(Tenant(id="private", name="acme", created_at=0.0))
    assert "INSERT" in str(caught.value.__cause__)
    assert "private" not in str(caught.value.__cause__)


@on_postgresql
def test_text_that_is_none_is_refused_when_it_holds_a_nul(database: Database) -> None:
    with pytest.raises(InvalidInput), database.session() as session:
        session.add(Tenant(id="t", name="a\0b", created_at=0.0))


@on_postgresql
def test_a_lost_connection_is_transient_and_the_next_works_when_the_server_ends_it(database: Database) -> None:
    with pytest.raises(Transient), database.session() as session:
        backend = session.scalar(text("SELECT pg_backend_pid()"))
        with database.session() as other:
            other.execute(text("SELECT pg_terminate_backend(:backend)"), {"backend": backend})
        database_time(session)
    database.ping()


@on_postgresql
def test_a_deadlock_is_transient_when_two_lock_crosswise(database: Database) -> None:
    names = ["one", "two"]
    for name in names:
        add_tenant(database, name)
    both_hold_one = threading.Barrier(2)

    def lock(first: str, second: str) -> None:
        with database.session() as session:
            session.execute(select(Tenant.id).where(Tenant.name == first).with_for_update())
            both_hold_one.wait(timeout=30)
            session.execute(select(Tenant.id).where(Tenant.name == second).with_for_update())

    outcomes = race([lambda: lock(*names), lambda: lock(*reversed(names))])
    assert sorted(map(str, map(type, outcomes))) == sorted(map(str, [type(None), Transient]))


def test_an_absent_server_is_transient_when_connected_to(tmp_path: Path) -> None:
    with pytest.raises(Transient):
        Database(f"postgresql://postgres@/nothing?host={tmp_path}").ping()


def test_a_locked_file_is_transient_when_the_wait_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmi.catalog.database.sqlite._BUSY_TIMEOUT_MS", 10)
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with database.session() as first:
        database_time(first)
        with pytest.raises(Transient, match="locked"), database.session() as second:
            database_time(second)
    database.dispose()


def test_a_full_disk_is_named_when_a_commit_finds_no_room(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(StorageFull), database.session() as session:
        session.execute(text("CREATE TABLE t (x TEXT)"))
        session.execute(text("PRAGMA max_page_count = 3"))
        session.execute(text("INSERT INTO t VALUES (:x)"), {"x": "x" * 100_000})
    database.dispose()


def test_a_file_that_is_no_database_is_corrupt_when_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(Corrupt):
        Database(f"sqlite:///{path}").ping()


def test_sqlite_is_set_up_for_several_processes_when_opened(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'deep' / 'x.db'}")
    with database.session() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    database.dispose()
    with sqlite3.connect(tmp_path / "deep" / "x.db") as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    plain.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db"])
def test_a_database_is_refused_when_the_catalog_cannot_run_on_it(url: str) -> None:
    with pytest.raises(ValueError, match="catalog"):
        Database(url)
