"""The `hmi` command.

Nothing heavy is imported here or in the modules of the commands: torch, sqlalchemy, pydantic and the
HTTP client are loaded by the command that needs them, so that `hmi --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hmi.cli.commands import bench, build, jobs, knowledge, serve, tenants, train, tree
from hmi.errors import HmiError


class _PlainErrors(TyperGroup):
    """Print a known error as one message on stderr with exit status 1; only a defect shows a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HmiError as error:
            typer.echo(f"error: {error.message}", err=True)
        except BrokenPipeError:
            sys.stderr.close()  # the reader of a pipe ended early, as `| head` does
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


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"hmi {version('hmi')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


for _module in (serve, train):
    _module.add_to(app)
for _name, _group in (
    ("base", knowledge.bases),
    ("build", build.app),
    ("domain", knowledge.domains),
    ("tenant", tenants.tenants),
    ("key", tenants.keys),
    ("model", tenants.models),
    ("batch", jobs.batches),
    ("tune", jobs.tunings),
    ("tree", tree.app),
    ("bench", bench.app),
):
    app.add_typer(_group, name=_name)

if __name__ == "__main__":
    app()
