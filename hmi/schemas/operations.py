"""The state of the service itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hmi.schemas.base import ResponseModel, Timestamp

__all__ = ["Health", "NodeObject", "Readiness"]


class Health(ResponseModel):
    status: Literal["ok"] = "ok"


class Readiness(ResponseModel):
    """Each check says `ok` or, in a few words, what is not."""

    status: Literal["ready", "not_ready"]
    checks: Annotated[dict[str, str], Field(examples=[{"database": "ok", "migrations": "ok"}])]


class NodeObject(ResponseModel):
    """A worker process."""

    object: Literal["hmi.node"] = "hmi.node"
    name: str
    device: str
    pid: int
    stats: Annotated[dict[str, Any], Field(description="The engine's figures: tiers, batches, trees.")]
    started_at: Timestamp
    seen_at: Timestamp
