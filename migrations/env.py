"""Runs migrations, on the connection of `hmi.catalog.upgrade_schema` or from alembic's command line."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from hmi.catalog import Database
from hmi.catalog.schema import Base
from hmi.settings import Settings


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite changes a table by copying it.
        render_as_batch=connection.dialect.name == "sqlite",
        # Both databases roll schema changes back, SQLite too if its driver does not begin transactions.
        transactional_ddl=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Fail instead of blocking every query behind a change that waits for its table.
            connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        context.run_migrations()


_given = context.config.attributes.get("connection")
if context.is_offline_mode():
    raise SystemExit("migrations run on a live database only")
if _given is not None:
    _run(_given)
else:
    _database = Database(Settings().resolved_database_url)
    with _database.engine.begin() as _connection:
        _run(_connection)
    _database.dispose()
