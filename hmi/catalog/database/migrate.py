"""Schema migrations by alembic; the scripts are installed as the package `migrations`."""

from __future__ import annotations

import threading
from importlib import resources
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, select

from hmi.catalog.database.engine import Database
from hmi.catalog.database.failures import translated

_MIGRATION_LOCK = 0x686D6900  # "hmi", 0
_ALEMBIC = threading.Lock()  # its context is one per process


def upgrade_schema(url: str) -> None:
    """Apply every missing migration in one transaction; concurrent calls run one after the other.

    Raises `Transient` where the database does not answer or a table stays locked for 10 s.
    """
    database = Database(url)
    try:
        config = _config()
        with translated(), _ALEMBIC, database.engine.begin() as connection:
            if not database.is_sqlite:  # there BEGIN has taken the write lock
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        database.dispose()


def is_schema_current(database: Database) -> bool:
    """Whether all migrations of this version are applied. Raises `Transient`."""
    with database.session(read_only=True) as session:
        heads = MigrationContext.configure(session.connection()).get_current_heads()
    return set(heads) == set(ScriptDirectory.from_config(_config()).get_heads())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(str(resources.files("migrations")))).replace("%", "%%"))
    return config
