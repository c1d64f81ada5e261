"""/v1/hmi/bases: base models that tenants' models are built on. `upload` checks an uploaded folder by its headers."""

from __future__ import annotations

from api.bases.endpoints import router

__all__ = ["router"]
