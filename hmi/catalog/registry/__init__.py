"""What is registered by name or id: tenants and their keys, base models, domains with deltas, tenants' models, files.

Start with `models`: a request's model name resolves to a base model, a domain and an adapter.
"""

from __future__ import annotations

from hmi.catalog.registry import bases, deltas, domains, files, models, tenants
from hmi.catalog.registry.bases import get_base, spec_of
from hmi.catalog.registry.deltas import DeltaView, nearest_deltas
from hmi.catalog.registry.domains import DomainView, get_domain
from hmi.catalog.registry.files import NewFile, create_file, get_file
from hmi.catalog.registry.keys import mint_key, parse_key
from hmi.catalog.registry.models import ServedModel, register_model
from hmi.catalog.registry.names import check_idempotency_key, check_json, check_model_name, reused_idempotency_key
from hmi.catalog.registry.tenants import Principal, lock_tenant, principal_of

__all__ = [
    "DeltaView",
    "DomainView",
    "NewFile",
    "Principal",
    "ServedModel",
    "bases",
    "check_idempotency_key",
    "check_json",
    "check_model_name",
    "create_file",
    "deltas",
    "domains",
    "files",
    "get_base",
    "get_domain",
    "get_file",
    "lock_tenant",
    "mint_key",
    "models",
    "nearest_deltas",
    "parse_key",
    "principal_of",
    "register_model",
    "reused_idempotency_key",
    "spec_of",
    "tenants",
]
