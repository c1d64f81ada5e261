"""hmi db"""

from __future__ import annotations

from typing import Annotated

import typer

from hmi.cli.commands.options import load_settings

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The catalog's database.")

_DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="Default: HMI_DATABASE_URL, or SQLite in the data folder."),
]


@app.command(epilog="Example: `HMI_DATABASE_URL=postgresql+psycopg://hmi@db/hmi hmi db upgrade`")
def upgrade(database_url: _DatabaseUrl = None) -> None:
    """Bring the schema up to date; running it again changes nothing."""
    from hmi.catalog import upgrade as migrate

    migrate(database_url or _own_database())
    typer.echo("the schema is up to date")


@app.command(epilog="Example: `hmi db check || hmi db upgrade`")
def check(database_url: _DatabaseUrl = None) -> None:
    """Exit with 0 where the schema is up to date, else with 1."""
    from hmi.catalog import Database, is_current
    from hmi.errors import Conflict

    database = Database(database_url or _own_database())
    try:
        if not is_current(database):
            raise Conflict("the schema is not up to date: run `hmi db upgrade`")
    finally:
        database.dispose()
    typer.echo("the schema is up to date")


def _own_database() -> str:
    from hmi.cli.client import DataFolder

    settings = load_settings()
    if not settings.database_url:
        DataFolder(settings.data_dir).prepare()
    return settings.resolved_database_url
