"""Statements that SQLAlchemy does not spell alike for both databases, and the database's clock."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import CursorResult, Double, Executable, Integer, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from hmi.catalog.schema import Base


class now(FunctionElement[float]):  # noqa: N801 - written like the SQL function it is
    """The database's own clock in Unix seconds, one value within a statement."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: SQLCompiler, **options: Any) -> str:
    # Not now(), which is the start of the transaction and is in the past after it waited for a lock.
    return "extract(epoch from statement_timestamp())::double precision"


class bit_count(FunctionElement[int]):  # noqa: N801 - written like the SQL function it is
    """The number of bits that are set in a bitmap of 64 bits."""

    type = Integer()
    inherit_cache = True


@compiles(bit_count, "sqlite")
def _bit_count_sqlite(element: bit_count, compiler: SQLCompiler, **options: Any) -> str:
    return f"hmi_bit_count({compiler.process(element.clauses, **options)})"


@compiles(bit_count, "postgresql")
def _bit_count_postgresql(element: bit_count, compiler: SQLCompiler, **options: Any) -> str:
    return f"bit_count(({compiler.process(element.clauses, **options)})::bit(64))"


class log(FunctionElement[float]):  # noqa: N801 - written like the SQL function it is
    """The natural logarithm; SQLite's own is an option of its build."""

    type = Double()
    inherit_cache = True


@compiles(log, "sqlite")
def _log_sqlite(element: log, compiler: SQLCompiler, **options: Any) -> str:
    return f"hmi_ln({compiler.process(element.clauses, **options)})"


@compiles(log, "postgresql")
def _log_postgresql(element: log, compiler: SQLCompiler, **options: Any) -> str:
    return f"ln({compiler.process(element.clauses, **options)})"


def database_time(session: Session) -> float:
    """Unix seconds by the database's clock."""
    return session.execute(select(now())).scalar_one()


def execute_dml(session: Session, statement: Executable) -> int:
    """Run an UPDATE, DELETE or INSERT and return the number of rows it changed.

    Rows that the session has loaded before are refreshed by the next query.
    """
    # Without `preserve_rowcount` the count of an INSERT is lost.
    options = {"synchronize_session": False, "preserve_rowcount": True}
    result = session.execute(statement, execution_options=options)
    return cast("CursorResult[Any]", result).rowcount


def insert_or(session: Session, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """An INSERT with `on_conflict_do_nothing` and `on_conflict_do_update`, which both dialects spell alike."""
    return sqlite.insert(table) if _is_sqlite(session) else postgresql.insert(table)


def lock_for_transaction(session: Session, key: int, *, shared: bool = False) -> None:
    """Wait until no other transaction holds `key`, and hold it to the end of this one; `shared`, beside others.

    A writing transaction on SQLite is the only one and needs no lock.
    """
    if not _is_sqlite(session):
        lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
        session.execute(select(lock(key)))


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"
