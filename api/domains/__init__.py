"""The tree of knowledge domains, who may use them, their deltas, and counts of an operator's text."""

from __future__ import annotations

from api.domains.audiences import router as audiences_router
from api.domains.deltas import router as deltas_router
from api.domains.endpoints import router
from api.domains.frequencies import router as frequencies_router

__all__ = ["audiences_router", "deltas_router", "frequencies_router", "router"]
