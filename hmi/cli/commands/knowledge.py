"""hmi base, hmi domain"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.deltas import deltas
from hmi.cli.commands.options import AsJson, Key, Url, connect, print_answer, print_table
from hmi.errors import InvalidInput

if TYPE_CHECKING:
    from hmi.schemas import DomainObject

bases = typer.Typer(no_args_is_help=True, help="Base models: pretrained models whose lower layers can be looked up.")
domains = typer.Typer(no_args_is_help=True, help="Domains: the nodes of the knowledge trees.")
domains.add_typer(deltas, name="delta")

_Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="A domain.")]
_Tenants = Annotated[list[str] | None, typer.Option("--tenant", help="One that may use it; repeat it for more.")]


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
    owner: Annotated[str | None, typer.Option(help="Tenant that owns it.  [default: the operator]")] = None,
    private: Annotated[bool, typer.Option("--private", help="For its owner alone, for ever.")] = False,
    tenant: _Tenants = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Create a domain under another one. Its lookups use its ancestors' rows until a rebuild stores rows of its own.

    The tenants that may use its parent may use it, or with --tenant these and the owner, or with --private the owner.
    """
    if private and tenant:
        raise InvalidInput("--private is for the owner alone; leave out --tenant")
    audience = "private" if private else "tenants" if tenant else None
    with connect(url, key) as client:
        made = client.create_domain(name, parent=parent, owner=owner, audience=audience, tenants=tenant or ())
    print_answer(made, as_json, f"domain {made.name} was created under {made.parent} for {_audience(made)}")


@domains.command("show", epilog="Example: `hmi domain show movies`")
def show_domain(name: _Domain, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show a domain's parent, its owner and who may use it."""
    with connect(url, key) as client:
        found = client.domain(name)
    owner = f", owned by {found.owner}" if found.owner else ""
    print_answer(found, as_json, f"{found.name}: under {found.parent or 'no other'}{owner}, for {_audience(found)}")


@domains.command("allow", epilog="Example: `hmi domain allow clinics acme`")
def allow_tenant(
    name: _Domain,
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Let a tenant use a domain that has a list of tenants."""
    with connect(url, key) as client:
        changed = client.allow_tenant(name, tenant)
    print_answer(changed, as_json, f"{changed.name} is for {_audience(changed)}")


@domains.command("deny", epilog="Example: `hmi domain deny clinics acme`")
def deny_tenant(
    name: _Domain,
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Take a tenant from a domain's list. Refused while the tenant has models or open fine-tuning jobs there."""
    with connect(url, key) as client:
        changed = client.deny_tenant(name, tenant)
    print_answer(changed, as_json, f"{changed.name} is for {_audience(changed)}")


@domains.command("audience", epilog="Example: `hmi domain audience clinics --tenant acme --tenant globex`")
def set_audience(
    name: _Domain,
    public: Annotated[bool, typer.Option("--public", help="All tenants may use it.")] = False,
    tenant: _Tenants = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Give a domain to all tenants, or to a list and its owner. A private domain stays private."""
    if public is bool(tenant):
        raise InvalidInput("say who may use it: --public, or --tenant once or more")
    with connect(url, key) as client:
        changed = client.set_audience(name, "public" if public else "tenants", tenant or ())
    print_answer(changed, as_json, f"{changed.name} is for {_audience(changed)}")


@domains.command("move", epilog="Example: `hmi domain move movies --parent general`")
def move_domain(
    name: _Domain,
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
    """Show all domains as a tree; with a tenant's key those that it may use."""
    from hmi.cli.render import domain_tree

    with connect(url, key) as client:
        found = client.domains()
    notes = {each.name: _audience(each) for each in found if each.audience != "public"}
    print_answer(found, as_json, domain_tree({each.name: each.parent for each in found}, notes))


def _audience(domain: DomainObject) -> str:
    if domain.audience == "public":
        return "all tenants"
    if domain.audience == "private":
        return f"{domain.owner or 'its owner'} alone"
    return ", ".join(domain.tenants) if domain.tenants else "some tenants"
