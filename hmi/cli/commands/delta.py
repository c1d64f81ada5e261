"""hmi domain delta"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, print_table

if TYPE_CHECKING:
    from hmi.schemas import DeltaObject

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Domain deltas: a base model's lower layers as one domain wants them.")

_Base = Annotated[str, typer.Argument(metavar="BASE", help="Name of the base model.")]
_Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="Domain that it is for, with all that is under it.")]


@app.command(name="set", epilog="Example: `hmi domain delta set minilm-k3 movies ./movies-delta`")
def set_(
    base: _Base,
    domain: _Domain,
    weights: Annotated[
        Path,
        typer.Argument(metavar="FILE|FOLDER", help="From `hmi build domain`, or a folder of a PEFT LoRA."),
    ],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload a delta, a LoRA on the lower layers; it takes the place of the one that the domain had.

    The domain's rows are computed anew by the next rebuild. Until then lookups compute what they need.
    """
    with connect(url, key) as client:
        made = client.set_delta(base, domain, weights)
    if as_json:
        print_answer(made)
    else:
        typer.echo(f"{domain} runs on {base} with delta {made.artifact[:12]} ({_words(made)})")
        typer.echo(f"its rows are stored by the next rebuild: hmi tree rebuild {base}")


@app.command(name="list", epilog="Example: `hmi domain delta list minilm-k3`")
def list_(
    base: Annotated[str | None, typer.Argument(metavar="BASE", help="Default: all base models.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the deltas by base model and domain."""
    from hmi.cli.render import moment

    with connect(url, key) as client:
        found = client.deltas(base)
    if as_json:
        print_answer(found)
        return
    rows = ((each.base, each.domain, each.artifact[:12], _words(each), moment(each.created_at)) for each in found)
    print_table(("base", "domain", "delta", "what it is", "set"), rows, empty="no domain has a delta of its own")


@app.command(epilog="Example: `hmi domain delta remove minilm-k3 movies`")
def remove(base: _Base, domain: _Domain, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Have the domain run with its next ancestor's delta again, or with the base model as it is."""
    with connect(url, key) as client:
        gone = client.remove_delta(base, domain)
    if as_json:
        print_answer(gone)
    else:
        typer.echo(f"{domain} has no delta of its own on {base} any more")


def _words(delta: DeltaObject) -> str:
    from hmi.cli.render import bytes_words

    summary = delta.summary
    layers = ", ".join(map(str, summary.get("layers", ())))
    return f"rank {summary.get('rank', '?')}, layers {layers}, {bytes_words(int(summary.get('bytes', 0)))}"
