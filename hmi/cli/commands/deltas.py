"""hmi domain delta"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, print_table

if TYPE_CHECKING:
    from hmi.schemas import DeltaObject

deltas = typer.Typer(no_args_is_help=True, help="Domain deltas: a LoRA on a base model's lower layers, for one domain.")

_Base = Annotated[str, typer.Argument(metavar="BASE", help="Name of the base model.")]
_Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="Domain that it is for, with all domains below it.")]


@deltas.command("set", epilog="Example: `hmi domain delta set minilm-k3 movies ./movies-delta`")
def set_delta(
    base: _Base,
    domain: _Domain,
    weights: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="From `hmi build domain`, or a PEFT LoRA.")],
    owner: Annotated[
        str | None, typer.Option(help="Tenant on whose text it was trained.  [default: the key's, or the operator]")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload a delta, a LoRA on the lower layers. It replaces the domain's previous one.

    The next rebuild computes the domain's rows again. Until then lookups compute the rows that they need. What was
    trained on one tenant's text stays on that tenant's private domains until the tenant publishes it.
    """
    with connect(url, key) as client:
        made = client.set_delta(base, domain, weights, owner=owner)
    print_answer(
        made,
        as_json,
        f"{domain} runs on {base} with delta {made.artifact[:12]} ({_words(made)})",
        f"the next rebuild stores its rows: hmi tree rebuild {base}",
    )


@deltas.command("list", epilog="Example: `hmi domain delta list minilm-k3`")
def list_deltas(
    base: Annotated[str | None, typer.Argument(metavar="BASE", help="Default: all base models.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the deltas by base model and domain."""
    from hmi.cli.render import moment

    with connect(url, key) as client:
        found = client.deltas(base)
    rows = (
        (each.base, each.domain, each.artifact[:12], _words(each), _owner(each), moment(each.created_at))
        for each in found
    )
    columns = ("base", "domain", "delta", "what it is", "owner", "set")
    print_table(found, as_json, columns, rows, "no domain has a delta of its own")


@deltas.command("publish", epilog="Example: `hmi domain delta publish minilm-k3 acme-notes`")
def publish_delta(base: _Base, domain: _Domain, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Let the operator set a delta of yours on domains of others, for ever. It takes the owning tenant's key."""
    with connect(url, key) as client:
        made = client.publish_delta(base, domain)
    print_answer(made, as_json, f"delta {made.artifact[:12]} of {domain} may be set on other domains now")


@deltas.command("remove", epilog="Example: `hmi domain delta remove minilm-k3 movies`")
def remove_delta(base: _Base, domain: _Domain, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Remove the domain's delta; the nearest ancestor's delta, or none, applies again."""
    with connect(url, key) as client:
        gone = client.remove_delta(base, domain)
    print_answer(gone, as_json, f"{domain} has no delta of its own on {base} any more")


def _words(delta: DeltaObject) -> str:
    from hmi.cli.render import bytes_words

    summary = delta.summary
    layers = ", ".join(map(str, summary.get("layers", ())))
    return f"rank {summary.get('rank', '?')}, layers {layers}, {bytes_words(int(summary.get('bytes', 0)))}"


def _owner(delta: DeltaObject) -> str:
    return (delta.owner or "") + (", published" if delta.is_published else "")
