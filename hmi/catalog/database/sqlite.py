"""How connections to SQLite are set up and transactions begin."""

from __future__ import annotations

import math
import sqlite3
import time

import sqlalchemy
import tenacity
from sqlalchemy import exc

_BUSY_TIMEOUT_MS = 30_000
_BEGIN_TIMEOUT_MS = 15  # of one attempt


def set_up_sqlite(connection: sqlite3.Connection, record: object) -> None:
    # None: the driver opens no transaction on its own; `begin_sqlite` does.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # SQLite's own mathematical functions are an option of its build.
    connection.create_function("hmi_log_add", 2, _log_add, deterministic=True)
    connection.create_function("hmi_ln", 1, math.log, deterministic=True)
    connection.create_function("hmi_bit_count", 1, int.bit_count, deterministic=True)


def begin_sqlite(connection: sqlalchemy.Connection) -> None:
    read_only = bool(connection.get_execution_options().get("read_only"))
    connection.exec_driver_sql(f"PRAGMA query_only = {int(read_only)}")
    if read_only:
        connection.exec_driver_sql("BEGIN")
        return
    # SQLite's busy handler backs off to ten tries a second and is not fair, so that many short transactions of another
    # process could starve this one. Hence many short tries.
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {_BEGIN_TIMEOUT_MS}")
    try:
        while not _has_begun(connection, deadline):
            pass
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(sqlite3.OperationalError),
    stop=tenacity.stop_after_delay(_BUSY_TIMEOUT_MS / 1000),
    wait=tenacity.wait_random(0.01, 0.1),
    reraise=True,
)
def _use_wal(connection: sqlite3.Connection) -> None:
    # This statement ignores busy_timeout, and several processes may open a new file at once.
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")


def _has_begun(connection: sqlalchemy.Connection, deadline: float) -> bool:
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    except exc.OperationalError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
            raise
        return False
    return True


def _log_add(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))
