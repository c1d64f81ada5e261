"""The tree of knowledge domains, their deltas, and counts of an operator's text."""

from __future__ import annotations

from api.domains.deltas import router as deltas_router
from api.domains.endpoints import router
from api.domains.frequencies import router as frequencies_router

__all__ = ["deltas_router", "frequencies_router", "router"]
