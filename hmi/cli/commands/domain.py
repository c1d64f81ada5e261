"""hmi domain"""

from __future__ import annotations

from typing import Annotated

import typer

from hmi.cli.commands import delta
from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, show

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Domains: the nodes of the knowledge trees.")
app.add_typer(delta.app, name="delta")


@app.command(epilog="Example: `hmi domain add movies --parent reviews`")
def add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
    parent: Annotated[str, typer.Option(help="The domain that it refines.")] = "general",
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Create a domain under another one. It looks up in its ancestors until a rebuild gives it rows of its own."""
    with connect(url, key) as client:
        made = client.create_domain(name, parent=parent)
    if as_json:
        print_answer(made)
    else:
        typer.echo(f"domain {made.name} was created under {made.parent}")


@app.command(epilog="Example: `hmi domain move movies --parent general`")
def move(
    name: Annotated[str, typer.Argument(help="A domain.")],
    parent: Annotated[str, typer.Option(help="Its new parent.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Put a domain, and all that is under it, under another one. Jobs run on."""
    with connect(url, key) as client:
        moved = client.move_domain(name, parent=parent)
    if as_json:
        print_answer(moved)
    else:
        typer.echo(f"domain {moved.name} lies under {moved.parent} now; the next rebuild moves its rows accordingly")


@app.command(name="list", epilog="Example: `hmi domain list`")
def list_(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Draw all domains."""
    from hmi.cli.render import domain_tree

    with connect(url, key) as client:
        found = client.domains()
    if as_json:
        print_answer(found)
    else:
        show(domain_tree({each.name: each.parent for each in found}))
