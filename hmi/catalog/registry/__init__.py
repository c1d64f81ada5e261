"""What is registered by name or id: tenants and their keys, base models, domains with deltas, tenants' models, files.

Start with `models`: a request's model name resolves to a base model, a domain and an adapter.
"""

from __future__ import annotations

from hmi.catalog.registry import audiences, bases, deltas, domains, files, models, names, tenants
from hmi.catalog.registry.deltas import DeltaView
from hmi.catalog.registry.domains import DomainView
from hmi.catalog.registry.files import NewFile
from hmi.catalog.registry.keys import mint_key
from hmi.catalog.registry.models import RegisteredModel
from hmi.catalog.registry.tenants import DeletedTenant, Principal

__all__ = [
    "DeletedTenant",
    "DeltaView",
    "DomainView",
    "NewFile",
    "Principal",
    "RegisteredModel",
    "audiences",
    "bases",
    "deltas",
    "domains",
    "files",
    "mint_key",
    "models",
    "names",
    "tenants",
]
