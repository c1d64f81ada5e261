"""/v1/hmi/trees: published trees, their versions and rebuilds (`endpoints`), and their n-grams as text (`ngrams`)."""

from __future__ import annotations

from api.trees.endpoints import router
from api.trees.ngrams import router as ngrams_router
from api.trees.ngrams import top_router

__all__ = ["ngrams_router", "router", "top_router"]
