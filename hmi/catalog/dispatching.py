"""Which waiting shards go to the queue next: start-time fair queueing over tenants.

Goyal, Vin and Cheng, "Start-time fair queueing", SIGCOMM 1996, with a tenant as a flow, a shard as a packet and its
cost as the length. A shard's start tag is the greater of the virtual time and the finish tag of the tenant's
shard before it; its finish tag is cost / weight later; shards go by start tag. The virtual time is
the greatest start tag dispatched so far, so a tenant that comes back has saved up nothing, and one with a
million lines does not stand before another's ten.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Double, Select, and_, bindparam, case, cast, func, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import lock_for_transaction, now
from hmi.catalog.states import is_running
from hmi.catalog.tables import Batch, Shard, ShardState, Tenant

__all__ = ["ShardMessage", "dispatch"]

_DISPATCH_LOCK = 0x686D6901  # "hmi", 1


@dataclass(frozen=True, slots=True)
class ShardMessage:
    """All that a message says: an attempt at a shard."""

    shard_id: str
    attempt: int


def dispatch(session: Session, *, in_flight: int) -> list[ShardMessage]:
    """Queue waiting shards until `in_flight` are queued or leased; gives the messages in fair order.

    The caller publishes them after the commit; what is lost on the way, `requeue_lost` finds.
    """
    lock_for_transaction(session, _DISPATCH_LOCK)
    out = select(func.count()).where(Shard.state.in_((ShardState.QUEUED, ShardState.LEASED)))
    room = in_flight - session.scalars(out).one()
    if room <= 0:
        return []
    picked = session.execute(_in_fair_order().limit(room)).all()
    if not picked:
        return []
    queued = (
        update(Shard)
        .where(Shard.id.in_([row.id for row in picked]), Shard.state == ShardState.PENDING)
        .values(state=ShardState.QUEUED, attempt=Shard.attempt + 1, queued_at=now())
        .returning(Shard.id, Shard.attempt)
    )
    attempts = {
        row.id: row.attempt for row in session.execute(queued, execution_options={"synchronize_session": False})
    }
    # The last of a tenant's shards has its greatest tags.
    served = {row.tenant_id: {"tenant": row.tenant_id, "start": row.start, "finish": row.finish} for row in picked}
    session.connection().execute(
        update(Tenant)
        .where(Tenant.id == bindparam("tenant"))
        .values(served_from=bindparam("start"), served_to=bindparam("finish")),
        [served[tenant_id] for tenant_id in sorted(served)],
    )
    return [ShardMessage(row.id, attempts[row.id]) for row in picked if row.id in attempts]


def _in_fair_order() -> Select[str, str, float, float]:
    """(shard id, tenant id, start tag, finish tag) of all waiting shards of running batches, in order."""
    virtual_time = select(func.max(Tenant.served_from)).scalar_subquery()
    share = cast(Tenant.weight, Double)
    up_to_this = func.sum(Shard.cost).over(
        partition_by=Shard.tenant_id, order_by=(Batch.created_at, Batch.id, Shard.first_line), rows=(None, 0)
    )
    waiting = (
        select(
            Shard.id,
            Shard.tenant_id,
            Batch.created_at,
            case((Tenant.served_to > virtual_time, Tenant.served_to), else_=virtual_time).label("begins"),
            (cast(up_to_this, Double) / share).label("ahead"),
            (cast(Shard.cost, Double) / share).label("cost"),
        )
        .join(Tenant, Tenant.id == Shard.tenant_id)
        .join(Batch, and_(Batch.id == Shard.batch_id, is_running()))
        .where(Shard.state == ShardState.PENDING)
        .subquery()
        .c
    )
    finish = (waiting.begins + waiting.ahead).label("finish")
    start = (waiting.begins + waiting.ahead - waiting.cost).label("start")
    return select(waiting.id, waiting.tenant_id, start, finish).order_by(start, waiting.created_at, finish, waiting.id)
