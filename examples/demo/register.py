"""Registrations through the API. What an earlier run registered stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from openai import OpenAI

from examples.data import DOMAINS
from examples.demo.models import MadeBase
from examples.demo.tenants import DemoTenant
from hmi.cli.client import HmiClient
from hmi.errors import Conflict, HmiError

__all__ = ["check_isolation", "register_bases", "register_domains", "register_model", "register_tenants"]

_KEY_SECONDS = 3600


def register_bases(client: HmiClient, made: Mapping[str, MadeBase]) -> int:
    """Register base models and return how many were new. Raises `Conflict` if a name has other weights already."""
    known = {each.name for each in client.bases()}
    for name, base in made.items():
        try:
            client.register_base(name, base.folder)  # the same name and weights again change nothing
        except Conflict as error:
            raise Conflict(
                f"{error.message}; the data folder is from another version: remove it, or choose another one"
            ) from error
    return len(made.keys() - known)


def register_domains(client: HmiClient) -> int:
    known = {each.name for each in client.domains()}
    new = [name for name in DOMAINS if name not in known]
    for name in new:
        client.create_domain(name, parent=DOMAINS[name])
    return len(new)


def register_tenants(client: HmiClient, tenants: Sequence[DemoTenant]) -> int:
    known = {each.name for each in client.tenants()}
    new = [tenant.name for tenant in tenants if tenant.name not in known]
    for name in new:
        client.create_tenant(name)
    return len(new)


def register_model(client: HmiClient, tenant: DemoTenant, adapter: Path) -> bool:
    """Upload a tenant's adapter; return whether it is new or has changed."""
    before = {each.name: each.revision for each in client.models(tenant.name)}
    model = client.register_model(tenant.model, base=tenant.base, domain=tenant.domain, adapter=adapter)
    return before.get(tenant.model) != model.revision


def check_isolation(client: HmiClient, tenant: DemoTenant, others: Sequence[DemoTenant]) -> list[str]:
    """Return the models that the tenant's own key shows.

    Raises `HmiError` (code `not_isolated`) if another tenant's model is among them.
    """
    key = client.create_key(tenant.name, label="demo", expires_in_seconds=_KEY_SECONDS)
    with OpenAI(base_url=f"{client.url}/v1", api_key=key.key) as own:
        seen = [model.id for model in own.models.list()]
    client.revoke_key(tenant.name, key.id)
    foreign = {other.model for other in others if other.name != tenant.name} & set(seen)
    if foreign or tenant.model not in seen:
        raise HmiError(f"the key of {tenant.name} shows {', '.join(seen) or 'no model'}", code="not_isolated")
    return seen
