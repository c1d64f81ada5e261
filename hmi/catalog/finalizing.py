"""The end of a batch: one process assembles the result files and publishes them in one transaction."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, case, exists, or_, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import execute_dml, now
from hmi.catalog.registry import NewFile, files
from hmi.catalog.schema import OPEN_BATCH, OPEN_JOB, Batch, BatchStatus, JobState, Shard


def finalizable(session: Session) -> list[str]:
    """Ids of the batches whose shards have all ended and that no process is assembling, oldest first."""
    return list(session.scalars(select(Batch.id).where(_is_finalizable()).order_by(Batch.created_at, Batch.id)))


def begin_finalizing(session: Session, batch_id: str, *, lease_seconds: float = 600.0) -> Batch | None:
    """Lease a batch for assembling its result; None if a shard is open, another process has it, or it has ended.

    Call it in a transaction after the one that finished the last shard: two last shards that end concurrently do not
    see each other. If its caller dies, the batch is finalizable again after `lease_seconds`.
    """
    taken = execute_dml(
        session,
        update(Batch)
        .where(Batch.id == batch_id, _is_finalizable())
        .values(
            # A cancelled batch stays "cancelling" to its end.
            status=case(
                (Batch.cancelling_at.is_(None), BatchStatus.FINALIZING.value),
                else_=BatchStatus.CANCELLING.value,
            ),
            finalizing_at=case((Batch.finalizing_at.is_(None), now()), else_=Batch.finalizing_at),
            finalizing_until=now() + lease_seconds,
        ),
    )
    return session.get_one(Batch, batch_id, populate_existing=True) if taken else None


def complete(session: Session, batch_id: str, *, output: NewFile | None, error: NewFile | None) -> bool:
    """Publish the result files and end the batch as cancelled, expired (a line never ran) or completed.

    False if it has ended already or was deleted; the caller then deletes the files it wrote.
    """
    never_ran = exists().where(Shard.batch_id == Batch.id, Shard.state == JobState.DROPPED)
    is_open = and_(Batch.id == batch_id, Batch.status.in_(OPEN_BATCH), Batch.finalizing_until.is_not(None))
    was_cancelled, ran_out = Batch.cancelling_at.is_not(None), and_(Batch.cancelling_at.is_(None), never_ran)
    ended = execute_dml(
        session,
        update(Batch)
        .where(is_open)
        .values(
            status=case(
                (was_cancelled, BatchStatus.CANCELLED.value),
                (ran_out, BatchStatus.EXPIRED.value),
                else_=BatchStatus.COMPLETED.value,
            ),
            cancelled_at=case((was_cancelled, now())),
            expired_at=case((ran_out, now())),
            completed_at=case((or_(was_cancelled, ran_out), None), else_=now()),
            finalizing_until=None,
            output_file_id=output.file_id if output else None,
            error_file_id=error.file_id if error else None,
        ),
    )
    if not ended:
        return False
    batch = session.get_one(Batch, batch_id, populate_existing=True)
    for new in (output, error):
        if new is not None:
            files.create_file(session, batch.tenant_id, new)
    return True


def _is_finalizable() -> ColumnElement[bool]:
    has_open_shard = exists().where(Shard.batch_id == Batch.id, Shard.state.in_(OPEN_JOB))
    is_free = or_(Batch.finalizing_until.is_(None), Batch.finalizing_until < now())
    return and_(Batch.status.in_(OPEN_BATCH), is_free, ~has_open_shard)
