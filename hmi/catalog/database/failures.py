"""Translates errors of the database drivers into `hmi.errors`.

A programming error (wrong SQL, an unknown column) is not translated.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator

import psycopg
from sqlalchemy import exc

from hmi.errors import Conflict, Corrupt, HmiError, InvalidInput, StorageFull, Transient

_FULL = (StorageFull, "the catalog's disk is full")
_DAMAGED = (Corrupt, "the catalog is damaged")
_UNAVAILABLE = (Transient, "the catalog cannot be used now")
_SQLITE_CODES: dict[int, tuple[type[HmiError], str]] = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_BUSY: _UNAVAILABLE,
    sqlite3.SQLITE_LOCKED: _UNAVAILABLE,
    sqlite3.SQLITE_IOERR: _UNAVAILABLE,
    sqlite3.SQLITE_CANTOPEN: _UNAVAILABLE,
    sqlite3.SQLITE_READONLY: _UNAVAILABLE,
    sqlite3.SQLITE_PERM: _UNAVAILABLE,
    sqlite3.SQLITE_PROTOCOL: _UNAVAILABLE,
}
_POSTGRES_STATES: tuple[tuple[str, tuple[type[HmiError], str]], ...] = (
    ("53100", _FULL),
    ("XX00[12]", _DAMAGED),
    # Connection failures, resources, shutdown, serialisation and deadlock, locks not available, system errors.
    ("08...|53...|57P0.|40001|40P01|55P03|58...|25006", _UNAVAILABLE),
)
_POSTGRES_NOT_MIGRATED = {"42P01", "42703"}


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translate database errors of the block."""
    try:
        yield
    except (exc.SQLAlchemyError, sqlite3.Error, psycopg.Error) as error:
        known = translate(error)
        if known is None:
            raise
        raise known from error


def translate(error: exc.SQLAlchemyError | sqlite3.Error | psycopg.Error) -> HmiError | None:
    """Return the error that a caller can act on, None for a programming error."""
    if isinstance(error, exc.TimeoutError):
        return Transient("all connections to the catalog are in use")
    if isinstance(error, exc.IntegrityError):
        return Conflict(f"the catalog does not allow this: {_first_line(error.orig or error)}")
    if isinstance(error, exc.DataError):
        return InvalidInput(f"the catalog cannot hold this value: {_first_line(error.orig or error)}")
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return Transient("the connection to the catalog was lost")
    driver_error = error.orig if isinstance(error, exc.DBAPIError) else error
    if isinstance(driver_error, sqlite3.Error):
        return _translate_sqlite(driver_error)
    if isinstance(driver_error, psycopg.Error):
        return _translate_postgresql(driver_error)
    return None


def _translate_sqlite(error: sqlite3.Error) -> HmiError | None:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the low byte: the primary code
    if code in _SQLITE_CODES:
        kind, message = _SQLITE_CODES[code]
        return kind(f"{message}: {error}")
    return _not_migrated() if "no such table" in str(error) else None


def _translate_postgresql(error: psycopg.Error) -> HmiError | None:
    state = error.sqlstate
    if state is None:  # no answer from the server
        is_operational = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return Transient(f"the catalog cannot be reached: {_first_line(error)}") if is_operational else None
    for pattern, (kind, message) in _POSTGRES_STATES:
        if re.fullmatch(pattern, state):
            return kind(f"{message}: {_first_line(error)}")
    return _not_migrated() if state in _POSTGRES_NOT_MIGRATED else None


def _not_migrated() -> Transient:
    return Transient("the catalog's tables are missing or old; run `hmi db upgrade`", code="not_migrated")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
