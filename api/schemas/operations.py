"""How the service itself is doing."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from hmi.catalog import WorkerNode

__all__ = ["Health", "NodeObject", "Readiness"]


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Each check says `ok` or, in a few words, what is not."""

    status: Literal["ready", "not_ready"]
    checks: Annotated[dict[str, str], Field(examples=[{"database": "ok", "migrations": "ok"}])]


class NodeObject(BaseModel):
    object: Literal["hmi.node"] = "hmi.node"
    name: str
    device: str
    pid: int
    stats: Annotated[dict[str, Any], Field(description="What its engine says of itself: tiers, batches, trees.")]
    started_at: int
    seen_at: int

    @classmethod
    def from_row(cls, node: WorkerNode) -> Self:
        return cls(
            name=node.name,
            device=node.device,
            pid=node.pid,
            stats=node.stats,
            started_at=int(node.started_at),
            seen_at=int(node.seen_at),
        )
