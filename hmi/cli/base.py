"""hmi base"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmi.cli.options import AsJson, Key, Url, connect, print_answer, print_table
from hmi.spec import RowDtype

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Base models: pretrained models whose lower layers can be looked up.")


@app.command(
    epilog="Examples: `hmi base build ./MiniLM-L6 --k 2 --out ./minilm-k2 --text news.txt`, "
    "`hmi base build ./MiniLM-L6 --k 0 --out ./minilm-k0`"
)
def build(
    source: Annotated[
        str, typer.Argument(help="Folder of a pretrained BERT (safetensors), or its name on a model hub.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    k: Annotated[
        int, typer.Option(min=0, help="Lower layers to look up instead of computing; 0 hosts it unchanged.")
    ] = 2,
    text: Annotated[
        Path | None, typer.Option(help="Text, one sentence a line, that the correction after the lookup is fitted to.")
    ] = None,
    rows: Annotated[RowDtype, typer.Option(help="How looked-up rows are stored.")] = RowDtype.INT8,
    as_json: AsJson = False,
) -> None:
    """Make a base model folder from a pretrained model."""
    import dataclasses
    import json

    from hmi.cli.textfiles import read_lines
    from hmi.models.loader import resolve_source
    from hmi.training.base import build_base

    texts = read_lines(text) if text else ()
    report = build_base(resolve_source(source), out, k, rows, texts)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=1))
        return
    spec = report.spec
    typer.echo(f"{out}: {spec.family} with {spec.layers} layers of {spec.hidden_size}, the lower {spec.k} looked up")
    if report.before and report.after:
        typer.echo(
            f"error of the last layer's states against the unchanged model: {report.before.upper:.3f} before "
            f"fitting, {report.after.upper:.3f} after, on text that fitting did not see"
        )


@app.command(epilog="Example: `hmi base register minilm-k2 ./minilm-k2`")
def register(
    name: Annotated[str, typer.Argument(help="What models and trees call it.")],
    folder: Annotated[Path, typer.Argument(help="A folder that `hmi base build` made.")],
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
