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

_NOT_MIGRATED = "the catalog's tables are missing or old; run `hmi db upgrade`"
_SQLITE_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
}
_SQLITE_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
# Connection failures, resources, shutdown, serialisation and deadlock, locks not available, system errors.
_POSTGRES_TRANSIENT = re.compile(r"08...|53...|57P0.|40001|40P01|55P03|58...|25006")
_POSTGRES_FULL = "53100"
_POSTGRES_CORRUPT = re.compile(r"XX00[12]")
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
    if isinstance(error, sqlite3.Error):  # from the driver's own cursor
        return _translate_sqlite(error)
    if isinstance(error, psycopg.Error):
        return _translate_postgresql(error)
    if isinstance(error, exc.TimeoutError):
        return Transient("all connections to the catalog are in use")
    if not isinstance(error, exc.DBAPIError):
        return None
    if isinstance(error, exc.IntegrityError):
        return Conflict(f"the catalog does not allow this: {_first_line(error)}")
    if isinstance(error, exc.DataError):
        return InvalidInput(f"the catalog cannot hold this value: {_first_line(error)}")
    if error.connection_invalidated:
        return Transient("the connection to the catalog was lost")
    if isinstance(error.orig, sqlite3.Error):
        return _translate_sqlite(error.orig)
    if isinstance(error.orig, psycopg.Error):
        return _translate_postgresql(error.orig)
    return None


def _translate_sqlite(error: sqlite3.Error) -> HmiError | None:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the low byte: the primary code
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"the catalog's disk is full: {error}")
    if code in _SQLITE_CORRUPT:
        return Corrupt(f"the catalog's file is damaged: {error}")
    if code in _SQLITE_TRANSIENT:
        return Transient(f"the catalog cannot be used now: {error}")
    if "no such table" in str(error):
        return Transient(_NOT_MIGRATED, code="not_migrated")
    return None


def _translate_postgresql(error: psycopg.Error) -> HmiError | None:
    state = error.sqlstate
    if state is None:  # no answer from the server
        return Transient(f"the catalog cannot be reached: {_one_line(error)}") if _is_operational(error) else None
    if state == _POSTGRES_FULL:
        return StorageFull(f"the catalog's disk is full: {_one_line(error)}")
    if _POSTGRES_CORRUPT.fullmatch(state):
        return Corrupt(f"the catalog is damaged: {_one_line(error)}")
    if _POSTGRES_TRANSIENT.fullmatch(state):
        return Transient(f"the catalog cannot be used now: {_one_line(error)}")
    if state in _POSTGRES_NOT_MIGRATED:
        return Transient(_NOT_MIGRATED, code="not_migrated")
    return None


def _is_operational(error: psycopg.Error) -> bool:
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def _first_line(error: exc.DBAPIError) -> str:
    return _one_line(error.orig) if error.orig is not None else str(error)


def _one_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
