"""The state transitions that all kinds of jobs share; the package's docstring has the diagram."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Double, Select, bindparam, case, cast, func, literal, select, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from hmi.catalog.database import lock_for_transaction, now
from hmi.catalog.schema import JobState, QueuedJob, Tenant

JobT = TypeVar("JobT", bound=QueuedJob)
Waiting = Select[str, str, float, float, float, float]


@dataclass(frozen=True, slots=True)
class JobMessage:
    """The content of a message to a worker: a job and the number of its attempt."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class FairOrder:
    """How the pending jobs of a table are ordered."""

    lock: int  # key of the lock that one dispatch holds at a time
    # Columns of `Tenant`: the virtual start and finish times of its last dispatched job.
    start: InstrumentedAttribute[float]
    finish: InstrumentedAttribute[float]
    sequence: tuple[InstrumentedAttribute[Any], ...]  # order a tenant's jobs; the first is the creation time
    eligible: Callable[[Waiting], Waiting]  # adds joins and conditions: which jobs may be dispatched now


class JobQueue(Generic[JobT]):
    """The queue of one table.

    Args:
        released_state: The state after a release, may be an SQL expression on the table.
        cleared: Values of further columns that have a meaning only while the job is leased.
    """

    def __init__(
        self,
        table: type[JobT],
        order: FairOrder,
        *,
        released_state: ColumnElement[str] | JobState = JobState.PENDING,
        cleared: Mapping[str, Any] | None = None,
    ) -> None:
        self._table = table
        self._order = order
        self._cleared = {"lease_until": None, **(cleared or {})}
        self._released = {"state": released_state, **self._cleared}

    def dispatch(self, session: Session, *, in_flight: int) -> list[JobMessage]:
        """Queue pending jobs until `in_flight` are queued or leased; return their messages in fair order.

        The caller sends the messages after the commit; `requeue_lost` repairs what is lost on the way.

        The order is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with a tenant as a flow, a job as a
        packet and its cost as the length. A job's start tag is the greater of the virtual time and the finish tag of
        the tenant's job before it; its finish tag is cost / weight later; jobs go by start tag. The virtual time is
        the greatest start tag dispatched so far, so a tenant that was idle has no credit, and one with a million jobs
        does not delay another's ten.
        """
        lock_for_transaction(session, self._order.lock)
        table = self._table
        active = select(func.count()).where(table.state.in_((JobState.QUEUED, JobState.LEASED)))
        room = in_flight - session.scalars(active).one()
        picked = session.execute(self._in_fair_order().limit(room)).all() if room > 0 else []
        if not picked:
            return []
        queued = (
            update(table)
            .where(table.id.in_([row.id for row in picked]), table.state == JobState.PENDING)
            .values(state=JobState.QUEUED, attempt=table.attempt + 1, queued_at=now())
            .returning(table.id, table.attempt)
        )
        attempts = {row[0]: row[1] for row in session.execute(queued, execution_options={"synchronize_session": False})}
        # The last of a tenant's jobs has its greatest tags.
        served = {row.tenant_id: {"tenant": row.tenant_id, "start": row.start, "finish": row.finish} for row in picked}
        tags: dict[Any, Any] = {self._order.start: bindparam("start"), self._order.finish: bindparam("finish")}
        session.connection().execute(
            update(Tenant).where(Tenant.id == bindparam("tenant")).values(tags),
            [served[tenant_id] for tenant_id in sorted(served)],
        )
        return [JobMessage(row.id, attempts[row.id]) for row in picked if row.id in attempts]

    def claim(
        self,
        session: Session,
        job_id: str,
        attempt: int,
        *conditions: ColumnElement[bool],
        owner: str,
        lease_seconds: float,
    ) -> JobT | None:
        """Lease a queued job; None if the attempt is not current or a condition does not hold."""
        claimed = self.update(
            session,
            *self._at(job_id, attempt, JobState.QUEUED),
            *conditions,
            state=JobState.LEASED,
            owner=owner,
            lease_until=now() + lease_seconds,
            started_at=func.coalesce(self._table.started_at, now()),
        )
        if not claimed:
            return None
        return session.get_one(self._table, job_id, populate_existing=True)

    def extend(self, session: Session, claims: Collection[JobMessage], lease_seconds: float) -> set[str]:
        """Extend leases to `lease_seconds` from now; return the ids of the jobs that are still leased."""
        if not claims:
            return set()
        held = tuple_(self._table.id, self._table.attempt).in_([(each.job_id, each.attempt) for each in claims])
        leased = self._table.state == JobState.LEASED
        return {job_id for job_id, _ in self.update(session, held, leased, lease_until=now() + lease_seconds)}

    def release(
        self, session: Session, job_id: str, attempt: int, *, reason: str, count_failure: bool, **values: Any
    ) -> bool:
        """Make a leased job pending again; False for a stale attempt.

        `count_failure` counts a failure that the job itself caused, and stores its reason.
        """
        if count_failure:
            values |= {"failures": self._table.failures + 1, "last_failure": reason.replace("\0", "\ufffd")}
        return self.update_leased(session, job_id, attempt, **self._released, **values)

    def finish(self, session: Session, job_id: str, attempt: int, state: JobState, **values: Any) -> bool:
        """End a leased job; False for a stale attempt."""
        return self.update_leased(session, job_id, attempt, state=state, finished_at=now(), **self._cleared, **values)

    def decline(self, session: Session, job_id: str, attempt: int) -> bool:
        """Make a queued job pending again, for a busy worker; False for a stale attempt."""
        return bool(self.update(session, *self._at(job_id, attempt, JobState.QUEUED), state=JobState.PENDING))

    def expire_leases(self, session: Session) -> list[tuple[str, str]]:
        """Make every job with an expired lease pending again and count a failure; return their (id, tenant id)."""
        table = self._table
        reason = literal("the lease of ") + func.coalesce(table.owner, "its worker") + literal(" ran out")
        expired = (table.state == JobState.LEASED, table.lease_until < now())
        return self.update(session, *expired, **self._released, failures=table.failures + 1, last_failure=reason)

    def requeue_lost(self, session: Session, timeout_seconds: float) -> int:
        """Make every job pending again that was queued `timeout_seconds` ago and not claimed; return their number."""
        lost = (self._table.state == JobState.QUEUED, self._table.queued_at < now() - timeout_seconds)
        return len(self.update(session, *lost, state=self._released["state"]))

    def update_leased(
        self, session: Session, job_id: str, attempt: int, *conditions: ColumnElement[bool], **values: Any
    ) -> bool:
        """Change a leased job; False for a stale attempt, or if a condition does not hold."""
        return bool(self.update(session, *self._at(job_id, attempt, JobState.LEASED), *conditions, **values))

    def update(self, session: Session, *conditions: ColumnElement[bool], **values: Any) -> list[tuple[str, str]]:
        """Change all jobs that meet the conditions in one UPDATE; return their (id, tenant id)."""
        table = self._table
        statement = update(table).where(*conditions).values(**values).returning(table.id, table.tenant_id)
        rows = session.execute(statement, execution_options={"synchronize_session": False})
        return sorted((row[0], row[1]) for row in rows)

    def _at(self, job_id: str, attempt: int, state: JobState) -> tuple[ColumnElement[bool], ...]:
        return self._table.id == job_id, self._table.attempt == attempt, self._table.state == state

    def _in_fair_order(self) -> Select[str, str, float, float]:
        """(job id, tenant id, start tag, finish tag) of all eligible pending jobs, in order."""
        table, order = self._table, self._order
        virtual_time = select(func.max(order.start)).scalar_subquery()
        share = cast(Tenant.weight, Double)
        up_to_this = func.sum(table.cost).over(partition_by=table.tenant_id, order_by=order.sequence, rows=(None, 0))
        pending = (
            select(
                table.id,
                table.tenant_id,
                order.sequence[0].label("created_at"),
                case((order.finish > virtual_time, order.finish), else_=virtual_time).label("begins"),
                (cast(up_to_this, Double) / share).label("ahead"),
                (cast(table.cost, Double) / share).label("cost"),
            )
            .join(Tenant, Tenant.id == table.tenant_id)
            .where(table.state == JobState.PENDING)
        )
        jobs = order.eligible(pending).subquery().c
        finish = (jobs.begins + jobs.ahead).label("finish")
        start = (jobs.begins + jobs.ahead - jobs.cost).label("start")
        return select(jobs.id, jobs.tenant_id, start, finish).order_by(start, jobs.created_at, finish, jobs.id)
