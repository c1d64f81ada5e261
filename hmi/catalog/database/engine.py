"""Connections and transactions, the only way to the catalog.

SQLite runs in WAL mode and takes its write lock at BEGIN, so that writers queue for it instead of failing half-way.
`session(read_only=True)` takes no lock and never waits. Every commit is synced (synchronous FULL): an answered request
is durable, and the catalog commits tens of times a second, not thousands. PostgreSQL runs at READ COMMITTED; every
change of state is one conditional UPDATE, which that level checks again on the newest row.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import event, make_url
from sqlalchemy.orm import Session

from hmi.catalog.database.failures import translated
from hmi.catalog.database.row_security import check_login, confine
from hmi.catalog.database.sqlite import begin_sqlite, set_up_sqlite
from hmi.catalog.database.statements import database_time

_POSTGRES_SCHEMES = {"postgres", "postgresql", "postgresql+psycopg"}
# Driver errors are logged with their statement, whose parameters are tenants' names, labels and metadata.
_ENGINE_OPTIONS: dict[str, Any] = {"pool_size": 5, "max_overflow": 40, "hide_parameters": True}


class Database:
    """Args: url: `sqlite:///path` (missing folders are created) or `postgresql://...`."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if not parsed.database or parsed.database == ":memory:":
                raise ValueError("the catalog needs a SQLite file: a database in memory is another one per connection")
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sqlalchemy.create_engine(parsed, **_ENGINE_OPTIONS)
            event.listen(self.engine, "connect", set_up_sqlite)
            event.listen(self.engine, "begin", begin_sqlite)
        elif parsed.drivername in _POSTGRES_SCHEMES:
            self.engine = sqlalchemy.create_engine(
                parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, **_ENGINE_OPTIONS
            )
        else:
            raise ValueError(f"the catalog runs on sqlite and postgresql, not on {parsed.drivername}")
        self._read_only = self.engine.execution_options(read_only=True, postgresql_readonly=True)
        self._tenant_id: str | None = None

    def for_tenant(self, tenant_id: str) -> Database:
        """The same connections for the requests of a tenant.

        On PostgreSQL their transactions see and change that tenant's rows alone (`database.row_security`).
        """
        confined = copy.copy(self)
        confined._tenant_id = tenant_id
        return confined

    @contextlib.contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """One transaction, committed at the end of the block, rolled back when the block raises.

        Queries refresh rows that were loaded before; rows stay readable after the end. `read_only` refuses writes and
        waits for no writer.

        Raises: `Transient` (connection lost, database locked, deadlock, not migrated), `StorageFull`, `Conflict` (a
            constraint), `InvalidInput` (text the database cannot hold), `Corrupt`; see `database.failures`.
        """
        with (
            translated(),
            Session(
                self._read_only if read_only else self.engine,
                expire_on_commit=False,
                execution_options={"populate_existing": True},
            ) as session,
        ):
            if self._tenant_id is not None and not self.is_sqlite:
                confine(session, self._tenant_id)
            with session.begin():
                yield session

    def ping(self) -> None:
        """Raises `Transient` where the database does not answer."""
        with self.session(read_only=True) as session:
            database_time(session)

    def check_row_security(self) -> None:
        """Raises `Transient` where the user of the URL cannot serve tenants under row-level security."""
        if self.is_sqlite:
            return
        with self.session(read_only=True) as session:
            check_login(session)
        self.for_tenant("").ping()

    def dispose(self) -> None:
        self.engine.dispose()
