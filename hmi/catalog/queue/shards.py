"""Jobs that run lines of a batch. Only the shards of a running batch are dispatched and claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, insert, select
from sqlalchemy.orm import Session

from hmi.catalog.database import now
from hmi.catalog.queue.jobs import FairOrder, JobQueue
from hmi.catalog.registry import Principal, tenants
from hmi.catalog.schema import Batch, BatchStatus, JobState, Shard, Tenant, new_id
from hmi.errors import InvalidInput

IS_RUNNING = and_(Batch.status == BatchStatus.IN_PROGRESS, Batch.expires_at > now())
"""Condition on `Batch`. A batch that stops running drops its waiting shards and lets the leased ones finish."""

_IN_RUNNING_BATCH = exists().where(Batch.id == Shard.batch_id, IS_RUNNING)
_queue = JobQueue(
    Shard,
    FairOrder(
        lock=0x686D6901,  # "hmi", 1
        start=Tenant.served_from,
        finish=Tenant.served_to,
        sequence=(Batch.created_at, Batch.id, Shard.first_line),
        eligible=lambda pending: pending.join(Batch, and_(Batch.id == Shard.batch_id, IS_RUNNING)),
    ),
    released_state=case((_IN_RUNNING_BATCH, JobState.PENDING.value), else_=JobState.DROPPED.value),
)
dispatch = _queue.dispatch
extend = _queue.extend
release = _queue.release
requeue_lost = _queue.requeue_lost


@dataclass(frozen=True, slots=True)
class LineRange:
    """`lines` consecutive lines of an input file, at its bytes `offset`..`offset + length`."""

    first_line: int  # 0-based
    lines: int
    offset: int
    length: int
    cost: int = 0  # estimated device time, in units of a cheap line; 0 means the number of lines


@dataclass(frozen=True, slots=True)
class ClaimedShard:
    """What a worker needs to run a shard."""

    shard_id: str
    attempt: int
    batch_id: str
    principal: Principal  # the tenant, as whom `models.resolve` looks up the models
    endpoint: str
    input_path: str
    first_line: int  # 0-based, within the batch
    lines: int
    offset: int  # bytes, in the input file
    length: int  # bytes
    failures: int
    lease_until: float  # Unix seconds by the database's clock
    expires_at: float  # end of the batch's window, by the same clock


@dataclass(frozen=True, slots=True)
class ShardResult:
    """The result of a shard: `completed + failed` is the number of its lines.

    `output_path` and `error_path` are in the storage, None for a file without lines.
    """

    output_path: str | None
    error_path: str | None
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int


def create_shards(
    session: Session, batch_id: str, tenant_id: str, spans: Sequence[LineRange], *, parent: Shard | None = None
) -> None:
    """Add pending shards. Parts of a failed `parent` inherit its quarantine.

    A part of several lines is one failure from being split again, so that a poison line among n is found in about
    log2(n) more failures; a part of one line starts without failures.
    """
    failures = max(parent.failures - 1, 0) if parent else 0
    rows: list[dict[str, Any]] = [
        {
            "id": new_id("shard_"),
            "batch_id": batch_id,
            "tenant_id": tenant_id,
            **asdict(span),
            "cost": span.cost or span.lines,
            "failures": failures if span.lines > 1 else 0,
            "last_failure": parent.last_failure if parent else None,
        }
        for span in spans
    ]
    session.execute(insert(Shard), rows)


def claim(session: Session, shard_id: str, attempt: int, *, owner: str, lease_seconds: float) -> ClaimedShard | None:
    """Lease a queued shard; None if the attempt is not current or its batch stopped running."""
    shard = _queue.claim(session, shard_id, attempt, _IN_RUNNING_BATCH, owner=owner, lease_seconds=lease_seconds)
    if shard is None:
        return None
    batch = session.get_one(Batch, shard.batch_id, populate_existing=True)
    return ClaimedShard(
        shard_id=shard.id,
        attempt=shard.attempt,
        batch_id=batch.id,
        principal=tenants.principal_of(session, batch.tenant_id),
        endpoint=batch.endpoint,
        input_path=batch.input_path,
        first_line=shard.first_line,
        lines=shard.lines,
        offset=shard.offset,
        length=shard.length,
        failures=shard.failures,
        lease_until=shard.lease_until or 0.0,
        expires_at=batch.expires_at,
    )


def finish(session: Session, shard_id: str, attempt: int, result: ShardResult) -> bool:
    """Store the result of a leased shard; False for a stale attempt, whose caller deletes the files it wrote.

    Raises `Conflict` if the counts do not add up to the shard's lines.
    """
    return _queue.finish(session, shard_id, attempt, JobState.DONE, **asdict(result))


def expire_leases(session: Session) -> int:
    """Make every shard with an expired lease pending again and count a failure; return their number."""
    return len(_queue.expire_leases(session))


def is_quarantined(session: Session, shard_id: str) -> bool:
    """Whether the shard, or the one it is a part of, has failed."""
    return session.scalar(select(Shard.last_failure).where(Shard.id == shard_id)) is not None


def exhausted(session: Session, max_failures: int) -> list[Shard]:
    """Return the pending shards with at least `max_failures` failures: to split, or to fail line by line."""
    failed = select(Shard).where(Shard.state == JobState.PENDING, Shard.failures >= max_failures).order_by(Shard.id)
    return list(session.scalars(failed))


def split(session: Session, shard_id: str, parts: Sequence[LineRange]) -> bool:
    """Replace a pending shard by smaller ones of the same lines; False if it is not pending any more."""
    shard = session.get(Shard, shard_id, populate_existing=True)
    if shard is None or shard.state is not JobState.PENDING:
        return False
    if len(parts) < 2 or sum(part.lines for part in parts) != shard.lines:
        raise InvalidInput(f"{len(parts)} parts do not split the {shard.lines} lines of shard {shard_id}")
    pending = (Shard.id == shard_id, Shard.state == JobState.PENDING)
    if not _queue.update(session, *pending, state=JobState.SPLIT, finished_at=now()):
        return False
    create_shards(session, shard.batch_id, shard.tenant_id, parts, parent=shard)
    return True


def fail_line(session: Session, shard_id: str, result: ShardResult) -> bool:
    """Finish a pending shard of one line with its error line; False if it is not pending any more."""
    pending = (Shard.id == shard_id, Shard.state == JobState.PENDING, Shard.lines == 1)
    return bool(_queue.update(session, *pending, state=JobState.DONE, finished_at=now(), **asdict(result)))


def drop_waiting(session: Session, *conditions: ColumnElement[bool]) -> int:
    """Drop the waiting shards that meet the conditions; return their number."""
    waiting = Shard.state.in_((JobState.PENDING, JobState.QUEUED))
    return len(_queue.update(session, waiting, *conditions, state=JobState.DROPPED, finished_at=now()))


def finished_shards(session: Session, batch_id: str) -> list[Shard]:
    """The shards with results, in line order. With `dropped_shards` they cover every line once."""
    return _ended(session, batch_id, JobState.DONE)


def dropped_shards(session: Session, batch_id: str) -> list[Shard]:
    """The shards that were dropped before they ran, in line order."""
    return _ended(session, batch_id, JobState.DROPPED)


def _ended(session: Session, batch_id: str, state: JobState) -> list[Shard]:
    found = select(Shard).where(Shard.batch_id == batch_id, Shard.state == state).order_by(Shard.first_line)
    return list(session.scalars(found))
