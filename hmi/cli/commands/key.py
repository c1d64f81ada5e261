"""hmi key"""

from __future__ import annotations

from typing import Annotated

import typer

from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, print_table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Keys that tenants call the API with.")

_Tenant = Annotated[str, typer.Argument(help="Name of the tenant.")]


@app.command(epilog="Example: `export OPENAI_API_KEY=$(hmi key create acme --label ci)`")
def create(
    tenant: _Tenant,
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    expires_in_days: Annotated[int | None, typer.Option(min=1, help="Default: it does not expire.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it: this once, since only its hash is kept."""
    seconds = expires_in_days * 86_400 if expires_in_days else None
    with connect(url, key) as client:
        made = client.create_key(tenant, label=label, expires_in_seconds=seconds)
    if as_json:
        print_answer(made)
    else:
        typer.echo(made.key)


@app.command(name="list", epilog="Example: `hmi key list acme`")
def list_(tenant: _Tenant, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List a tenant's keys by their public part."""
    from hmi.cli.render import moment

    with connect(url, key) as client:
        found = client.keys(tenant)
    if as_json:
        print_answer(found)
        return
    rows = (
        (each.id, each.label, moment(each.created_at), moment(each.expires_at), moment(each.revoked_at))
        for each in found
    )
    print_table(("key", "label", "created", "expires", "revoked"), rows, empty=f"{tenant} has no keys")


@app.command(epilog="Example: `hmi key revoke acme 5f0c2a9d`")
def revoke(
    tenant: _Tenant,
    key_id: Annotated[str, typer.Argument(help="The key's public part, from `hmi key list`.")],
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a key useless from now on."""
    with connect(url, key) as client:
        client.revoke_key(tenant, key_id)
    typer.echo(f"key {key_id} of {tenant} was revoked")
