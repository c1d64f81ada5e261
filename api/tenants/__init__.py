"""/v1/hmi/tenants: tenants and their API keys."""

from __future__ import annotations

from api.tenants.endpoints import router

__all__ = ["router"]
