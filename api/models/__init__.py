"""OpenAI's /v1/models, and the registration of tenants' models."""

from __future__ import annotations

from api.models.endpoints import router
from api.models.registration import router as registration_router

__all__ = ["registration_router", "router"]
