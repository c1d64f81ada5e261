"""/v1/batches: many requests from a file, answered into a file."""

from __future__ import annotations

from api.batches.endpoints import router

__all__ = ["router"]
