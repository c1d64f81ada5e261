"""Shards: who runs which lines of a batch.

Every change of state is one conditional UPDATE that names the state it starts from and, from the claim
on, the attempt: whoever comes late changes nothing. The order of dispatch is in `catalog.dispatching`,
the sweeps that repair in `catalog.recovery`; both are part of this module's face.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, tuple_, update
from sqlalchemy.orm import Session

from hmi.catalog.database import change, now
from hmi.catalog.dispatching import ShardMessage, dispatch
from hmi.catalog.recovery import ShardResult, exhausted, expire_leases, fail_line, requeue_lost, result_values, split
from hmi.catalog.states import in_running_batch, waiting_or_dropped
from hmi.catalog.tables import Batch, Shard, ShardState
from hmi.catalog.tenants import Principal, principal_of

__all__ = [
    "ClaimedShard",
    "ShardMessage",
    "ShardResult",
    "claim",
    "counts",
    "dispatch",
    "dropped_shards",
    "exhausted",
    "expire_leases",
    "extend",
    "fail_line",
    "finish",
    "finished_shards",
    "give_back",
    "is_suspect",
    "requeue_lost",
    "split",
]


@dataclass(frozen=True, slots=True)
class ClaimedShard:
    """What a worker needs to run a shard.

    Attributes:
        principal: On whose behalf: the scope for `models.resolve`.
        first_line: 0-based, within the batch.
        offset, length: Bytes of the input file at `input_path`.
        lease_until: Unix seconds by the database's clock.
        expires_at: End of the batch's window, by the same clock.
    """

    shard_id: str
    attempt: int
    batch_id: str
    principal: Principal
    endpoint: str
    input_path: str
    first_line: int
    lines: int
    offset: int
    length: int
    failures: int
    lease_until: float
    expires_at: float


def claim(session: Session, shard_id: str, attempt: int, *, owner: str, lease_seconds: float) -> ClaimedShard | None:
    """Take a queued shard for `lease_seconds`; None where this attempt is not current or its batch stopped."""
    taken = change(
        session,
        update(Shard)
        .where(_is(shard_id, attempt), Shard.state == ShardState.QUEUED, in_running_batch())
        .values(state=ShardState.LEASED, owner=owner, lease_until=now() + lease_seconds, started_at=now()),
    )
    if not taken:
        return None
    shard, batch = session.execute(
        select(Shard, Batch)
        .join(Batch, Batch.id == Shard.batch_id)
        .where(Shard.id == shard_id)
        .execution_options(populate_existing=True)
    ).one()
    return ClaimedShard(
        shard_id=shard.id,
        attempt=shard.attempt,
        batch_id=batch.id,
        principal=principal_of(session, batch.tenant_id),
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


def extend(session: Session, claims: Collection[ShardMessage], lease_seconds: float) -> set[str]:
    """Prolong leases to `lease_seconds` from now; gives the ids of the shards that are still held."""
    if not claims:
        return set()
    held = tuple_(Shard.id, Shard.attempt).in_([(each.shard_id, each.attempt) for each in claims])
    statement = (
        update(Shard)
        .where(held, Shard.state == ShardState.LEASED)
        .values(lease_until=now() + lease_seconds)
        .returning(Shard.id)
    )
    return set(session.scalars(statement, execution_options={"synchronize_session": False}))


def finish(session: Session, shard_id: str, attempt: int, result: ShardResult) -> bool:
    """Record the result of a leased shard; False where the shard belongs to somebody else or is gone.

    The caller then deletes the files it wrote. Raises `Conflict` where the counts do not add up to the
    shard's lines.
    """
    finished = update(Shard).where(_is(shard_id, attempt), Shard.state == ShardState.LEASED)
    return change(session, finished.values(**result_values(result))) > 0


def give_back(session: Session, shard_id: str, attempt: int, *, reason: str, blame: bool) -> bool:
    """Put a leased shard back, to wait again; `blame` counts a failure of the shard itself, and keeps the reason.

    False where the shard belongs to somebody else.
    """
    returned = update(Shard).where(_is(shard_id, attempt), Shard.state == ShardState.LEASED)
    values: dict[str, Any] = {"state": waiting_or_dropped(), "lease_until": None}
    if blame:
        values |= {"failures": Shard.failures + 1, "last_failure": reason.replace("\0", "\ufffd")}
    return change(session, returned.values(**values)) > 0


def is_suspect(session: Session, shard_id: str) -> bool:
    """Whether the shard was blamed for a failure before, or is a part of one that was."""
    return session.scalar(select(Shard.last_failure).where(Shard.id == shard_id)) is not None


def finished_shards(session: Session, batch_id: str) -> list[Shard]:
    """The shards with results, in line order. With `dropped_shards` they cover every line once."""
    return _leaves(session, batch_id, ShardState.DONE)


def dropped_shards(session: Session, batch_id: str) -> list[Shard]:
    """The shards that never ran and never will, in line order."""
    return _leaves(session, batch_id, ShardState.DROPPED)


def counts(session: Session) -> dict[ShardState, int]:
    """How many shards are in each state, all tenants together."""
    found = {row[0]: row[1] for row in session.execute(select(Shard.state, func.count()).group_by(Shard.state))}
    return {state: found.get(state, 0) for state in ShardState}


def _is(shard_id: str, attempt: int) -> ColumnElement[bool]:
    return and_(Shard.id == shard_id, Shard.attempt == attempt)


def _leaves(session: Session, batch_id: str, state: ShardState) -> list[Shard]:
    return list(
        session.scalars(
            select(Shard)
            .where(Shard.batch_id == batch_id, Shard.state == state)
            .order_by(Shard.first_line)
            .execution_options(populate_existing=True)
        )
    )
