"""Which waiting fine-tuning job goes to the queue next: start-time fair queueing over tenants.

As `catalog.dispatching` does it for shards, with a job as the packet and its tokens as the length. What failed for lack
of something (a full disk, a service) waits its time out first and holds nobody up.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Double, Select, bindparam, case, cast, func, or_, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import lock_for_transaction, now
from hmi.catalog.tables import Tenant
from hmi.catalog.tuning_tables import TuningJob, TuningState

__all__ = ["TuningMessage", "dispatch"]

_DISPATCH_LOCK = 0x686D6902  # "hmi", 2


@dataclass(frozen=True, slots=True)
class TuningMessage:
    """All that a message says: an attempt at a job."""

    job_id: str
    attempt: int


def dispatch(session: Session, *, in_flight: int) -> list[TuningMessage]:
    """Queue waiting jobs until `in_flight` are queued or leased; gives the messages in fair order.

    The caller publishes them after the commit; what is lost on the way, `recovery.requeue_lost` finds.
    """
    lock_for_transaction(session, _DISPATCH_LOCK)
    out = select(func.count()).where(TuningJob.state.in_((TuningState.QUEUED, TuningState.LEASED)))
    room = in_flight - session.scalars(out).one()
    picked = session.execute(_in_fair_order().limit(room)).all() if room > 0 else []
    if not picked:
        return []
    queued = (
        update(TuningJob)
        .where(TuningJob.id.in_([row.id for row in picked]), TuningJob.state == TuningState.PENDING)
        .values(state=TuningState.QUEUED, attempt=TuningJob.attempt + 1, queued_at=now(), not_before=None)
        .returning(TuningJob.id, TuningJob.attempt)
    )
    attempts = {
        row.id: row.attempt for row in session.execute(queued, execution_options={"synchronize_session": False})
    }
    # The last of a tenant's jobs has its greatest tags.
    served = {row.tenant_id: {"tenant": row.tenant_id, "start": row.start, "finish": row.finish} for row in picked}
    session.connection().execute(
        update(Tenant)
        .where(Tenant.id == bindparam("tenant"))
        .values(tuned_from=bindparam("start"), tuned_to=bindparam("finish")),
        [served[tenant_id] for tenant_id in sorted(served)],
    )
    return [TuningMessage(row.id, attempts[row.id]) for row in picked if row.id in attempts]


def _in_fair_order() -> Select[str, str, float, float]:
    """(job id, tenant id, start tag, finish tag) of all jobs that wait for nothing else, in order."""
    virtual_time = select(func.max(Tenant.tuned_from)).scalar_subquery()
    share = cast(Tenant.weight, Double)
    up_to_this = func.sum(TuningJob.cost).over(
        partition_by=TuningJob.tenant_id, order_by=(TuningJob.created_at, TuningJob.id), rows=(None, 0)
    )
    waiting = (
        select(
            TuningJob.id,
            TuningJob.tenant_id,
            TuningJob.created_at,
            case((Tenant.tuned_to > virtual_time, Tenant.tuned_to), else_=virtual_time).label("begins"),
            (cast(up_to_this, Double) / share).label("ahead"),
            (cast(TuningJob.cost, Double) / share).label("cost"),
        )
        .join(Tenant, Tenant.id == TuningJob.tenant_id)
        .where(
            TuningJob.state == TuningState.PENDING, or_(TuningJob.not_before.is_(None), TuningJob.not_before <= now())
        )
        .subquery()
        .c
    )
    finish = (waiting.begins + waiting.ahead).label("finish")
    start = (waiting.begins + waiting.ahead - waiting.cost).label("start")
    return select(waiting.id, waiting.tenant_id, start, finish).order_by(start, waiting.created_at, finish, waiting.id)
