"""The `hmi` command.

Nothing heavy is imported here or in the modules of the commands: torch, sqlalchemy, pydantic and the
HTTP client are loaded by the command that needs them, so that `hmi --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hmi.cli.commands import (
    base,
    batch,
    bench,
    build,
    database,
    domain,
    key,
    model,
    status,
    tenant,
    train,
    tree,
    tune,
    up,
)
from hmi.cli.commands import demo as demonstrate
from hmi.errors import HmiError

__all__ = ["app"]


class _PlainErrors(TyperGroup):
    """A known error is one message on stderr and exit status 1; only a defect shows a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HmiError as error:
            typer.echo(f"error: {error.message}", err=True)
        except BrokenPipeError:
            sys.stderr.close()  # the reader of a pipe left early, as `| head` does
        raise typer.Exit(1)


app = typer.Typer(
    name="hmi",
    cls=_PlainErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Serve many tenants' fine-tuned language models from one accelerator.",
    epilog="Start with `hmi demo` (everything once, on this machine) or `hmi up` (services that stay).",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hmi {version('hmi')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


for _module in (up, demonstrate, status, train):
    _module.add_to(app)
for _name, _group in (
    ("db", database.app),
    ("base", base.app),
    ("build", build.app),
    ("domain", domain.app),
    ("tenant", tenant.app),
    ("key", key.app),
    ("model", model.app),
    ("batch", batch.app),
    ("tune", tune.app),
    ("tree", tree.app),
    ("bench", bench.app),
):
    app.add_typer(_group, name=_name)

if __name__ == "__main__":
    app()
