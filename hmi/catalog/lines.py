"""Spans of an input file's lines, as shards are cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from hmi.catalog.tables import new_id

__all__ = ["LineSpan", "NewShard", "shard_row"]


class LineSpan(Protocol):
    """Consecutive lines of an input file, by whoever cut it.

    `first_line` is 0-based; the lines lie at bytes `offset`..`offset + length`. `cost` is what running them is taken to
    ask of a device, in units of a line that asks for little; 0 for as many as there are lines.
    """

    @property
    def first_line(self) -> int: ...
    @property
    def lines(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def cost(self) -> int: ...


@dataclass(frozen=True, slots=True)
class NewShard:
    """A plain `LineSpan`."""

    first_line: int
    lines: int
    offset: int
    length: int
    cost: int = 0


def shard_row(batch_id: str, tenant_id: str, span: LineSpan) -> dict[str, Any]:
    """The columns of a new shard that waits."""
    return {
        "id": new_id("shard_"),
        "batch_id": batch_id,
        "tenant_id": tenant_id,
        "first_line": span.first_line,
        "lines": span.lines,
        "offset": span.offset,
        "length": span.length,
        "cost": span.cost or span.lines,
    }
