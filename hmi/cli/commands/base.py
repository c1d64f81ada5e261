"""hmi base"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, print_table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Base models: pretrained models whose lower layers can be looked up.")


@app.command(epilog="Example: `hmi base register minilm-k3 ./minilm-k3`")
def register(
    name: Annotated[str, typer.Argument(help="What models and trees call it.")],
    folder: Annotated[Path, typer.Argument(help="A folder that `hmi build base` made.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload a base model."""
    with connect(url, key) as client:
        made = client.register_base(name, folder)
    if as_json:
        print_answer(made)
    else:
        typer.echo(f"base model {made.name} is registered ({made.artifact[:12]})")


@app.command(name="list", epilog="Example: `hmi base list`")
def list_(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List base models with their shapes and the number of their published tree."""
    with connect(url, key) as client:
        found = client.bases()
    if as_json:
        print_answer(found)
        return
    names = ("family", "layers", "hidden_size", "k", "row_dtype")
    rows = ((each.name, *(each.spec.get(name, "") for name in names), each.tree or "none") for each in found)
    print_table(("base", "family", "layers", "hidden", "k", "rows", "tree"), rows, empty="no base models")
