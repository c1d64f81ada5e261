"""hmi base, hmi domain, hmi domain delta"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, print_table

if TYPE_CHECKING:
    from hmi.schemas import DeltaObject

bases = typer.Typer(no_args_is_help=True, help="Base models: pretrained models whose lower layers can be looked up.")
domains = typer.Typer(no_args_is_help=True, help="Domains: the nodes of the knowledge trees.")
deltas = typer.Typer(no_args_is_help=True, help="Domain deltas: a LoRA on a base model's lower layers, for one domain.")
domains.add_typer(deltas, name="delta")

_Base = Annotated[str, typer.Argument(metavar="BASE", help="Name of the base model.")]
_Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="Domain that it is for, with all domains below it.")]


@bases.command("register", epilog="Example: `hmi base register minilm-k3 ./minilm-k3`")
def register_base(
    name: Annotated[str, typer.Argument(help="Its name in models and trees.")],
    folder: Annotated[Path, typer.Argument(help="A folder that `hmi build base` made.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload a base model."""
    with connect(url, key) as client:
        made = client.register_base(name, folder)
    print_answer(made, as_json, f"base model {made.name} is registered ({made.artifact[:12]})")


@bases.command("list", epilog="Example: `hmi base list`")
def list_bases(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List base models with their shapes and the number of their published tree."""
    with connect(url, key) as client:
        found = client.bases()
    names = ("family", "layers", "hidden_size", "k", "row_dtype")
    rows = ((each.name, *(each.spec.get(name, "") for name in names), each.tree or "none") for each in found)
    print_table(found, as_json, ("base", "family", "layers", "hidden", "k", "rows", "tree"), rows, "no base models")


@domains.command("add", epilog="Example: `hmi domain add movies --parent reviews`")
def add_domain(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
    parent: Annotated[str, typer.Option(help="Its parent domain.")] = "general",
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Create a domain under another one. Its lookups use its ancestors' rows until a rebuild stores rows of its own."""
    with connect(url, key) as client:
        made = client.create_domain(name, parent=parent)
    print_answer(made, as_json, f"domain {made.name} was created under {made.parent}")


@domains.command("move", epilog="Example: `hmi domain move movies --parent general`")
def move_domain(
    name: Annotated[str, typer.Argument(help="A domain.")],
    parent: Annotated[str, typer.Option(help="Its new parent.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Move a domain with its descendants under another parent. Jobs continue to run."""
    with connect(url, key) as client:
        moved = client.move_domain(name, parent=parent)
    print_answer(moved, as_json, f"domain {moved.name} is under {moved.parent} now; the next rebuild moves its rows")


@domains.command("list", epilog="Example: `hmi domain list`")
def list_domains(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show all domains as a tree."""
    from hmi.cli.render import domain_tree

    with connect(url, key) as client:
        found = client.domains()
    print_answer(found, as_json, domain_tree({each.name: each.parent for each in found}))


@deltas.command("set", epilog="Example: `hmi domain delta set minilm-k3 movies ./movies-delta`")
def set_delta(
    base: _Base,
    domain: _Domain,
    weights: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="From `hmi build domain`, or a PEFT LoRA.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload a delta, a LoRA on the lower layers. It replaces the domain's previous one.

    The next rebuild computes the domain's rows again. Until then lookups compute the rows that they need.
    """
    with connect(url, key) as client:
        made = client.set_delta(base, domain, weights)
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
    rows = ((each.base, each.domain, each.artifact[:12], _words(each), moment(each.created_at)) for each in found)
    print_table(
        found, as_json, ("base", "domain", "delta", "what it is", "set"), rows, "no domain has a delta of its own"
    )


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
