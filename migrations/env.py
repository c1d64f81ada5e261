"""Runs migrations: on the connection that `hmi.catalog.migrate` hands over, or from alembic's command line."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from hmi.catalog import Database, TuningJob
from hmi.settings import Settings


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        # All tables are in it: the module of this one stands on that of the others.
        target_metadata=TuningJob.metadata,
        # SQLite changes a table by making it anew.
        render_as_batch=connection.dialect.name == "sqlite",
        # Both databases can take a change of the schema back, SQLite too where BEGIN is not left to its driver.
        transactional_ddl=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Rather fail than have every query wait behind a change that waits for its table.
            connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        context.run_migrations()


_given = context.config.attributes.get("connection")
if context.is_offline_mode():
    raise SystemExit("migrations run on a live database only, which they look at before they change it")
if _given is not None:
    _run(_given)
else:
    _database = Database(Settings().resolved_database_url)
    with _database.engine.begin() as _connection:
        _run(_connection)
    _database.dispose()
