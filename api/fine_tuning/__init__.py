"""/v1/fine_tuning/jobs. Read `endpoints`, then `order`, which turns a request into the job that is trained."""

from __future__ import annotations

from api.fine_tuning.endpoints import router

__all__ = ["router"]
