"""Health checks for supervisors, and the worker nodes."""

from __future__ import annotations

from api.operations.endpoints import health_router, nodes_router

__all__ = ["health_router", "nodes_router"]
