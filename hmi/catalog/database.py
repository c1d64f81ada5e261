"""The one door to the SQL catalog: engine, transactions, the database's clock, errors.

SQLite runs in WAL mode and takes its write lock at BEGIN, so that two writers queue for it instead of
failing in the middle; `session(read_only=True)` takes none and never waits. It syncs at every commit
(synchronous FULL): an answered request is durable, and the catalog commits tens of times a second, not
thousands. PostgreSQL runs at READ COMMITTED; every change of state is one conditional UPDATE, which
that level re-checks against the newest row.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import sqlalchemy
import tenacity
from sqlalchemy import CursorResult, Double, Executable, event, exc, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from hmi.catalog.decay import add_sqlite_functions
from hmi.catalog.failures import translated
from hmi.catalog.tables import Base

__all__ = ["Database", "change", "clock", "insert_or", "lock_for_transaction", "now"]

_BUSY_TIMEOUT_MS = 30_000
_BEGIN_TIMEOUT_MS = 15  # of one attempt
_POSTGRES_SCHEMES = {"postgres", "postgresql", "postgresql+psycopg"}
# An error of the driver is logged with its statement, whose values are tenants' names, labels and metadata.
_ENGINE_OPTIONS: dict[str, Any] = {"pool_size": 5, "max_overflow": 40, "hide_parameters": True}


class now(FunctionElement[float]):  # noqa: N801 - written like the SQL function it is
    """The database's own clock in Unix seconds, one value within a statement."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: SQLCompiler, **options: Any) -> str:
    # Not now(): that is the transaction's start, which lies in the past of one that waited for a lock.
    return "extract(epoch from statement_timestamp())::double precision"


class Database:
    """Args: url: `sqlite:///path` (folders on the way are made) or `postgresql://...`."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if not parsed.database or parsed.database == ":memory:":
                raise ValueError("the catalog needs a SQLite file: a database in memory is another one per connection")
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sqlalchemy.create_engine(parsed, **_ENGINE_OPTIONS)
            event.listen(self.engine, "connect", _set_up_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        elif parsed.drivername in _POSTGRES_SCHEMES:
            self.engine = sqlalchemy.create_engine(
                parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, **_ENGINE_OPTIONS
            )
        else:
            raise ValueError(f"the catalog runs on sqlite and postgresql, not on {parsed.drivername}")
        self._read_only = self.engine.execution_options(read_only=True, postgresql_readonly=True)

    @contextlib.contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """One transaction: committed when the block ends well, rolled back when it raises.

        Rows stay readable after the end. `read_only` refuses writes and waits for no writer.

        Raises: `Transient` (connection lost, database locked, deadlock, not migrated), `StorageFull`,
            `Conflict` (a constraint), `InvalidInput` (text the database cannot hold), `Corrupt`; see
            `catalog.failures`.
        """
        with (
            translated(),
            Session(self._read_only if read_only else self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def ping(self) -> None:
        """Raises `Transient` where the database does not answer."""
        with self.session(read_only=True) as session:
            clock(session)

    def dispose(self) -> None:
        self.engine.dispose()


def clock(session: Session) -> float:
    """Unix seconds by the database's clock."""
    return session.execute(select(now())).scalar_one()


def change(session: Session, statement: Executable) -> int:
    """Run an UPDATE, DELETE or INSERT and give the number of rows that it changed.

    Rows that the session has loaded before are not refreshed.
    """
    # An INSERT's count is thrown away with its cursor unless it is asked for.
    options = {"synchronize_session": False, "preserve_rowcount": True}
    result = session.execute(statement, execution_options=options)
    return cast("CursorResult[Any]", result).rowcount


def insert_or(session: Session, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can take `on_conflict_do_nothing` and `on_conflict_do_update`, which both dialects spell alike."""
    return sqlite.insert(table) if _is_sqlite(session) else postgresql.insert(table)


def lock_for_transaction(session: Session, key: int) -> None:
    """Wait until no other transaction holds `key`; held to the end of this one.

    SQLite needs none: a writing transaction is the only one there.
    """
    if not _is_sqlite(session):
        session.execute(select(func.pg_advisory_xact_lock(key)))


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _set_up_sqlite(connection: sqlite3.Connection, record: object) -> None:
    # None: the driver opens no transaction on its own; `_begin_sqlite` does.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    add_sqlite_functions(connection)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(sqlite3.OperationalError),
    stop=tenacity.stop_after_delay(_BUSY_TIMEOUT_MS / 1000),
    wait=tenacity.wait_random(0.01, 0.1),
    reraise=True,
)
def _use_wal(connection: sqlite3.Connection) -> None:
    # The one switch that does not wait out busy_timeout, and several processes may open a new file at once.
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: sqlalchemy.Connection) -> None:
    read_only = bool(connection.get_execution_options().get("read_only"))
    connection.exec_driver_sql(f"PRAGMA query_only = {int(read_only)}")
    if read_only:
        connection.exec_driver_sql("BEGIN")
        return
    # SQLite asks for a lock ever more seldom, in the end ten times a second, and those who asked first have no
    # right to it: many short transactions of another process would keep it waiting. So it begins anew each time.
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {_BEGIN_TIMEOUT_MS}")
    try:
        while not _has_begun(connection, deadline):
            pass
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")


def _has_begun(connection: sqlalchemy.Connection, deadline: float) -> bool:
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    except exc.OperationalError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
            raise
        return False
    return True
