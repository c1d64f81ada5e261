"""Every error of a driver that an operator or a caller can act on has a name of ours."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import exc

from hmi.catalog.database.failures import translate, translated
from hmi.errors import Conflict, Corrupt, HmiError, InvalidInput, StorageFull, Transient


def _wrapped(error: Exception) -> exc.DBAPIError:
    module = psycopg if isinstance(error, psycopg.Error) else sqlite3
    made = exc.DBAPIError.instance("SELECT 1", None, error, module.Error)
    assert isinstance(made, exc.DBAPIError)
    return made


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.DiskFull("no space"), StorageFull),
        (errors.AdminShutdown("bye"), Transient),
        (errors.CannotConnectNow("starting"), Transient),
        (errors.TooManyConnections("full"), Transient),
        (errors.SerializationFailure("again"), Transient),
        (errors.DeadlockDetected("again"), Transient),
        (errors.LockNotAvailable("locked"), Transient),
        (errors.ConnectionFailure("gone"), Transient),
        (errors.ReadOnlySqlTransaction("a standby"), Transient),
        (errors.UniqueViolation("twice"), Conflict),
        (errors.ForeignKeyViolation("missing"), Conflict),
        (errors.CheckViolation("wrong"), Conflict),
        (errors.StringDataRightTruncation("long"), InvalidInput),
        (errors.NumericValueOutOfRange("big"), InvalidInput),
        (errors.DataCorrupted("bits"), Corrupt),
        (errors.IndexCorrupted("bits"), Corrupt),
        (errors.UndefinedTable("none"), Transient),
        (psycopg.OperationalError("connection refused"), Transient),
    ],
)
def test_postgresqls_error_is_named_when_it_can_be_acted_on(error: Exception, expected: type[HmiError]) -> None:
    assert type(translate(_wrapped(error))) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY, Transient),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Transient),
        (sqlite3.SQLITE_LOCKED, Transient),
        (sqlite3.SQLITE_IOERR_READ, Transient),
        (sqlite3.SQLITE_CANTOPEN, Transient),
        (sqlite3.SQLITE_READONLY, Transient),
        (sqlite3.SQLITE_FULL, StorageFull),
        (sqlite3.SQLITE_CORRUPT, Corrupt),
        (sqlite3.SQLITE_NOTADB, Corrupt),
    ],
)
def test_sqlites_error_is_named_when_it_can_be_acted_on(code: int, expected: type[HmiError]) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    assert type(translate(_wrapped(error))) is expected


@pytest.mark.parametrize("error", [errors.SyntaxError("SELEC"), sqlite3.OperationalError("no such column: x")])
def test_a_defect_stays_what_it_is_when_nobody_else_can_act_on_it(error: Exception) -> None:
    wrapped = _wrapped(error)
    assert translate(wrapped) is None
    with pytest.raises(type(wrapped)), translated():
        raise wrapped


def test_waiting_for_a_connection_is_transient_when_all_are_in_use() -> None:
    with pytest.raises(Transient), translated():
        raise exc.TimeoutError
