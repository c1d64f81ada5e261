"""hmi model"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmi.cli.commands import model_import
from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, print_table
from hmi.spec import MissPolicy

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Tenants' models: a base model, a domain and an adapter.")


@app.command(epilog="Example: `hmi model register acme/sentiment --base minilm-k3 --domain movies --adapter ./adapter`")
def register(
    name: Annotated[str, typer.Argument(help="`tenant/model`, what requests name.")],
    base: Annotated[str, typer.Option(help="Name of the base model that the adapter was trained on.")],
    domain: Annotated[str, typer.Option(help="Domain whose knowledge it looks up.")] = "general",
    adapter: Annotated[
        Path | None,
        typer.Option(help="Adapter folder of HMI, PEFT or AdapterHub; without it the base alone is served."),
    ] = None,
    policy: Annotated[
        MissPolicy,
        typer.Option(help="For n-grams that the tree lacks: compute them (exact), or take shorter ones (backoff)."),
    ] = MissPolicy.EXACT,
    label: Annotated[list[str] | None, typer.Option(help="A label's name; once for each, in the head's order.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload an adapter as a tenant's model; a name that exists gets a new revision."""
    with connect(url, key) as client:
        made = client.register_model(
            name, base=base, domain=domain, adapter=adapter, miss_policy=policy.value, labels=label or None
        )
    if as_json:
        print_answer(made)
    else:
        typer.echo(f"{made.name} is served (revision {made.revision})")


@app.command(name="list", epilog="Example: `hmi model list --tenant acme`")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List models with their base, domain and adapter."""
    from hmi.cli.render import adapter_words

    with connect(url, key) as client:
        found = client.models(tenant)
    if as_json:
        print_answer(found)
        return
    rows = (
        (each.name, each.base, each.domain, each.miss_policy, each.revision, adapter_words(each.summary))
        for each in found
    )
    print_table(("model", "base", "domain", "policy", "revision", "adapter"), rows, empty="no models")


@app.command(epilog="Example: `hmi model remove acme/sentiment`")
def remove(name: Annotated[str, typer.Argument(help="`tenant/model`")], url: Url = None, key: Key = None) -> None:
    """Stop serving a model."""
    with connect(url, key) as client:
        client.delete_model(name)
    typer.echo(f"{name} was removed")


model_import.add_to(app)
