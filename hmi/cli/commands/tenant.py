"""hmi tenant"""

from __future__ import annotations

from typing import Annotated

import typer

from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, print_table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Customers: each has its own models, files, batches and keys.")


@app.command(epilog="Example: `hmi tenant add acme --weight 2`")
def add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
    weight: Annotated[int, typer.Option(min=1, help="Share of the workers while several tenants wait.")] = 1,
    with_key: Annotated[bool, typer.Option("--with-key", help="Also create a key and print it.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Create a tenant."""
    with connect(url, key) as client:
        made = client.create_tenant(name, weight=weight)
        new_key = client.create_key(name) if with_key else None
    if as_json:
        print_answer([made, new_key] if new_key else made)
    elif new_key:
        typer.echo(new_key.key)
    else:
        typer.echo(f"tenant {made.name} was created; give it a key with `hmi key create {made.name}`")


@app.command(name="list", epilog="Example: `hmi tenant list --json`")
def list_(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List all tenants."""
    with connect(url, key) as client:
        found = client.tenants()
    if as_json:
        print_answer(found)
    else:
        print_table(("tenant", "weight"), ((each.name, each.weight) for each in found), empty="no tenants")


@app.command(epilog="Example: `hmi tenant remove acme --yes`")
def remove(
    name: Annotated[str, typer.Argument()],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Remove a tenant with its models, files, batches and keys."""
    if not yes:
        typer.confirm(f"Remove {name} with its models, files, batches and keys?", abort=True)
    with connect(url, key) as client:
        client.delete_tenant(name)
    typer.echo(f"tenant {name} was removed")
