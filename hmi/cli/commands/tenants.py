"""hmi tenant, hmi key, hmi model"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands import model_import
from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, print_table
from hmi.spec import CountPolicy, MissPolicy

if TYPE_CHECKING:
    from hmi.schemas import TenantPurge

tenants = typer.Typer(no_args_is_help=True, help="Customers: each has its own models, files, batches and keys.")
keys = typer.Typer(no_args_is_help=True, help="Keys that tenants call the API with.")
models = typer.Typer(no_args_is_help=True, help="Tenants' models: a base model, a domain and an adapter.")

_Tenant = Annotated[str, typer.Argument(help="Name of the tenant.")]


_COUNTS = "Whether its lookups are counted towards knowledge trees: all, or none."


class _CountsChoice(StrEnum):
    ALL = CountPolicy.ALL.value
    NONE = CountPolicy.NONE.value
    DEFAULT = "default"


@tenants.command("add", epilog="Example: `hmi tenant add acme --weight 2`")
def add_tenant(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
    weight: Annotated[int, typer.Option(min=1, help="Share of the workers while several tenants have work.")] = 1,
    counts: Annotated[CountPolicy | None, typer.Option(help=_COUNTS)] = None,
    with_key: Annotated[bool, typer.Option("--with-key", help="Also create a key and print it.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Create a tenant."""
    with connect(url, key) as client:
        made = client.create_tenant(name, weight=weight, counts=counts)
        new_key = client.create_key(name) if with_key else None
    if new_key:
        print_answer([made, new_key], as_json, new_key.key)
    else:
        hint = f"give it a key with `hmi key create {made.name}`"
        print_answer(made, as_json, f"tenant {made.name} was created; {hint}")


@tenants.command("list", epilog="Example: `hmi tenant list --json`")
def list_tenants(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List all tenants."""
    with connect(url, key) as client:
        found = client.tenants()
    rows = ((each.name, each.weight, each.counts or "default") for each in found)
    print_table(found, as_json, ("tenant", "weight", "counts"), rows, "no tenants")


@tenants.command("set", epilog="Example: `hmi tenant set acme --counts none`")
def set_tenant(
    name: Annotated[str | None, typer.Argument(help="Default: the key's own tenant, with --counts alone.")] = None,
    weight: Annotated[int | None, typer.Option(min=1, help="Share of the workers while others have work.")] = None,
    counts: Annotated[_CountsChoice | None, typer.Option(help=_COUNTS)] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Change a tenant. A tenant may choose with its own key whether its lookups are counted."""
    changes: dict[str, object] = {} if weight is None else {"weight": weight}
    if counts is not None:
        changes["counts"] = None if counts is _CountsChoice.DEFAULT else counts.value
    if not changes:
        raise typer.BadParameter("say what to change: --weight, --counts")
    with connect(url, key) as client:
        made = client.change_tenant(name, **changes)
    print_answer(made, as_json, f"tenant {made.name}: weight {made.weight}, counts {made.counts or 'default'}")


@tenants.command("delete", epilog="Example: `hmi tenant delete acme --purge --yes`")
def delete_tenant(
    name: _Tenant,
    purge: Annotated[bool, typer.Option("--purge", help="Rebuild the trees; say what is left where.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Delete a tenant with its models, private domains, files, batches and keys.

    The next rebuild of a tree removes it from n-gram counts, and what only it had asked for.
    """
    if not yes:
        typer.confirm(f"Delete {name} with its models, private domains, files, batches and keys?", abort=True)
    with connect(url, key) as client:
        made = client.delete_tenant(name, purge=purge)
    print_answer(made, as_json, f"tenant {name} was deleted", *(_purge_lines(made.purge) if made.purge else ()))


def _purge_lines(purge: TenantPurge) -> list[str]:
    lines = [f"{purge.ngrams:,} n-gram counts change at the next rebuild"]
    lines += [f"tree of {each.base}: version {each.number} will be built without it" for each in purge.rebuilds]
    lines += [
        f"tree of {each.base}: version {each.number}{', served,' if each.served else ''} is kept until two newer ones"
        " are published"
        for each in purge.versions
    ]
    lines += [f"left in the storage: {path}" for path in purge.files_left]
    lines += [f"left in the storage: adapter {digest}, which no model names" for digest in purge.adapters_left]
    return [*lines, *purge.notes]


@keys.command("create", epilog="Example: `export OPENAI_API_KEY=$(hmi key create acme --label ci)`")
def create_key(
    tenant: _Tenant,
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    expires_in_days: Annotated[int | None, typer.Option(min=1, help="Default: it does not expire.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. It cannot be printed again: only its hash is stored."""
    seconds = expires_in_days * 86_400 if expires_in_days else None
    with connect(url, key) as client:
        made = client.create_key(tenant, label=label, expires_in_seconds=seconds)
    print_answer(made, as_json, made.key)


@keys.command("list", epilog="Example: `hmi key list acme`")
def list_keys(tenant: _Tenant, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List a tenant's keys by their public part."""
    from hmi.cli.render import moment

    with connect(url, key) as client:
        found = client.keys(tenant)
    rows = (
        (each.id, each.label, moment(each.created_at), moment(each.expires_at), moment(each.revoked_at))
        for each in found
    )
    print_table(found, as_json, ("key", "label", "created", "expires", "revoked"), rows, f"{tenant} has no keys")


@keys.command("revoke", epilog="Example: `hmi key revoke acme 5f0c2a9d`")
def revoke_key(
    tenant: _Tenant,
    key_id: Annotated[str, typer.Argument(help="The key's public part, from `hmi key list`.")],
    url: Url = None,
    key: Key = None,
) -> None:
    """Revoke a key at once."""
    with connect(url, key) as client:
        client.revoke_key(tenant, key_id)
    typer.echo(f"key {key_id} of {tenant} was revoked")


@models.command(
    "register",
    epilog="Example: `hmi model register acme/sentiment --base minilm-k3 --domain movies --adapter ./adapter`",
)
def register_model(
    name: Annotated[str, typer.Argument(help="`tenant/model`, the name in requests.")],
    base: Annotated[str, typer.Option(help="Name of the base model that the adapter was trained on.")],
    domain: Annotated[str, typer.Option(help="Domain for lookups.")] = "general",
    adapter: Annotated[Path | None, typer.Option(help="Folder of HMI, PEFT or AdapterHub.  [default: none]")] = None,
    policy: Annotated[MissPolicy, typer.Option(help="Compute missing rows, or estimate them.")] = MissPolicy.EXACT,
    label: Annotated[list[str] | None, typer.Option(help="Name of a label; repeat it in the head's order.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload an adapter as a tenant's model; a name that exists gets a new revision."""
    with connect(url, key) as client:
        made = client.register_model(
            name, base=base, domain=domain, adapter=adapter, miss_policy=policy.value, labels=label or None
        )
    print_answer(made, as_json, f"{made.name} is served (revision {made.revision})")


@models.command("list", epilog="Example: `hmi model list --tenant acme`")
def list_models(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List models with their base, domain and adapter."""
    from hmi.cli.render import adapter_words

    with connect(url, key) as client:
        found = client.models(tenant)
    rows = (
        (each.name, each.base, each.domain, each.miss_policy, each.revision, adapter_words(each.summary))
        for each in found
    )
    print_table(found, as_json, ("model", "base", "domain", "policy", "revision", "adapter"), rows, "no models")


@models.command("remove", epilog="Example: `hmi model remove acme/sentiment`")
def remove_model(name: Annotated[str, typer.Argument(help="`tenant/model`")], url: Url = None, key: Key = None) -> None:
    """Stop serving a model."""
    with connect(url, key) as client:
        client.delete_model(name)
    typer.echo(f"{name} was removed")


model_import.add_to(models)
