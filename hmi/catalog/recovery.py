"""Sweeps that put lost shards back, and the search for a line that kills its workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, literal, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import change, now
from hmi.catalog.lines import LineSpan, shard_row
from hmi.catalog.states import waiting_or_dropped
from hmi.catalog.tables import Shard, ShardState
from hmi.errors import InvalidInput

__all__ = [
    "ShardResult",
    "exhausted",
    "expire_leases",
    "fail_line",
    "requeue_lost",
    "result_values",
    "split",
]


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What running a shard gave: `completed + failed` lines are all of its lines.

    `output_path` and `error_path` lie in the storage, None where there is no such line.
    """

    output_path: str | None
    error_path: str | None
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int


def expire_leases(session: Session) -> int:
    """Put back every leased shard whose lease ran out, and blame it; gives their number."""
    reason = literal("the lease of ") + func.coalesce(Shard.owner, "its worker") + literal(" ran out")
    lapsed = update(Shard).where(Shard.state == ShardState.LEASED, Shard.lease_until < now())
    values = {"state": waiting_or_dropped(), "failures": Shard.failures + 1, "last_failure": reason}
    return change(session, lapsed.values(**values, lease_until=None))


def requeue_lost(session: Session, timeout_seconds: float) -> int:
    """Put back every shard whose message nobody took for `timeout_seconds`, without blame; gives their number."""
    lost = update(Shard).where(Shard.state == ShardState.QUEUED, Shard.queued_at < now() - timeout_seconds)
    return change(session, lost.values(state=waiting_or_dropped()))


def exhausted(session: Session, max_failures: int) -> list[Shard]:
    """The waiting shards that have failed `max_failures` times or more: to be split, or failed line by line."""
    return list(
        session.scalars(
            select(Shard)
            .where(Shard.state == ShardState.PENDING, Shard.failures >= max_failures)
            .order_by(Shard.id)
            .execution_options(populate_existing=True)
        )
    )


def split(session: Session, shard_id: str, parts: Sequence[LineSpan]) -> bool:
    """Replace a waiting shard by smaller ones of the same lines; False where it does not wait any more.

    A part of several lines is one failure from being split again, so that a bad line among n is found in
    about log2(n) more failures; a part of one line starts without blame. Both keep the reason, and so stay suspect.
    """
    shard = session.get(Shard, shard_id, populate_existing=True)
    if shard is None or shard.state is not ShardState.PENDING:
        return False
    if len(parts) < 2 or sum(part.lines for part in parts) != shard.lines:
        raise InvalidInput(f"{len(parts)} parts do not split the {shard.lines} lines of shard {shard_id}")
    waiting = update(Shard).where(Shard.id == shard_id, Shard.state == ShardState.PENDING)
    if not change(session, waiting.values(state=ShardState.SPLIT, finished_at=now())):
        return False
    rows: list[dict[str, Any]] = [
        {
            **shard_row(shard.batch_id, shard.tenant_id, part),
            "failures": max(shard.failures - 1, 0) if part.lines > 1 else 0,
            "last_failure": shard.last_failure,
        }
        for part in parts
    ]
    session.execute(insert(Shard), rows)
    return True


def fail_line(session: Session, shard_id: str, result: ShardResult) -> bool:
    """End a waiting shard of one line with its error line; False where it does not wait any more."""
    waiting = update(Shard).where(Shard.id == shard_id, Shard.state == ShardState.PENDING, Shard.lines == 1)
    return change(session, waiting.values(**result_values(result))) > 0


def result_values(result: ShardResult) -> dict[str, Any]:
    """The columns of a shard that has ended with `result`."""
    return {
        "state": ShardState.DONE,
        "finished_at": now(),
        "lease_until": None,
        "output_path": result.output_path,
        "error_path": result.error_path,
        "completed": result.completed,
        "failed": result.failed,
        "input_tokens": result.input_tokens,
        "output_tokens": result.output_tokens,
    }
