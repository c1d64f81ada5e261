"""Fine-tuning jobs as their workers see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import case, or_, select
from sqlalchemy.orm import Session

from hmi.catalog.database import now
from hmi.catalog.queue.jobs import FairOrder, JobQueue
from hmi.catalog.queue.training_events import add_event
from hmi.catalog.registry import Principal, bases, deltas, tenants
from hmi.catalog.schema import OPEN_JOB, Domain, EventLevel, JobState, RegisteredBase, Tenant, TuningJob
from hmi.spec import HPLMSpec, MissPolicy

queue = JobQueue(
    TuningJob,
    FairOrder(
        lock=0x686D6902,  # "hmi", 2
        start=Tenant.tuned_from,
        finish=Tenant.tuned_to,
        sequence=(TuningJob.created_at, TuningJob.id),
        eligible=lambda pending: pending.where(or_(TuningJob.not_before.is_(None), TuningJob.not_before <= now())),
    ),
    cleared={"estimated_finish": None},
)
dispatch = queue.dispatch
decline = queue.decline
extend = queue.extend
requeue_lost = queue.requeue_lost


@dataclass(frozen=True, slots=True)
class ClaimedTraining:
    """What a worker needs to train."""

    job_id: str
    attempt: int
    principal: Principal
    base: str | None  # the base model's name; like the next two None if it was deleted
    base_artifact: str | None  # its digest
    spec: HPLMSpec | None
    domain: str | None  # its name; None if it was deleted
    delta: str | None  # digest of the nearest delta among the domain and its ancestors; None if there is none
    miss_policy: MissPolicy
    target: str
    training_path: str
    validation_path: str | None
    config: Mapping[str, Any] = field(hash=False)
    checkpoint_path: str | None  # in the storage; None before the first checkpoint
    epochs_recorded: int  # epochs whose metrics are in the events
    failures: int


def claim(session: Session, job_id: str, attempt: int, *, owner: str, lease_seconds: float) -> ClaimedTraining | None:
    """Lease a queued job; None if the attempt is not current."""
    job = queue.claim(session, job_id, attempt, owner=owner, lease_seconds=lease_seconds)
    if job is None:
        return None
    if job.checkpoint_path:
        event = f"Fine-tuning job resumed from step {job.checkpoint_step}"
    else:
        event = "Fine-tuning job started" + (" again" if job.progress else "")
    add_event(session, job.tenant_id, job_id, event)
    base = session.get(RegisteredBase, job.base_id) if job.base_id else None
    domain = session.get(Domain, job.domain_id) if job.domain_id else None
    place = (base.id, domain.name) if base and domain else None
    return ClaimedTraining(
        job_id=job_id,
        attempt=attempt,
        principal=tenants.principal_of(session, job.tenant_id),
        base=base.name if base else None,
        base_artifact=base.artifact if base else None,
        spec=bases.spec_of(base) if base else None,
        domain=domain.name if domain else None,
        delta=deltas.nearest_deltas(session, {place}).get(place) if place else None,
        miss_policy=job.miss_policy,
        target=job.target,
        training_path=job.training_path,
        validation_path=job.validation_path,
        config=job.config,
        checkpoint_path=job.checkpoint_path,
        epochs_recorded=job.epochs_recorded,
        failures=job.failures,
    )


def release(
    session: Session, job_id: str, attempt: int, *, reason: str, count_failure: bool, wait_seconds: float = 0.0
) -> bool:
    """Make a leased job pending again, not to be dispatched for `wait_seconds`; False for a stale attempt.

    `count_failure` counts a failure that the job itself caused, and stores its reason.
    """
    not_before = now() + wait_seconds if wait_seconds else None
    released = queue.release(
        session, job_id, attempt, reason=reason, count_failure=count_failure, not_before=not_before
    )
    if released:
        _add_interruption(session, session.get_one(TuningJob, job_id).tenant_id, job_id)
    return released


def expire_leases(session: Session) -> int:
    """Make every job with an expired lease pending again and count a failure; return their number."""
    expired = queue.expire_leases(session)
    for job_id, tenant_id in expired:
        _add_interruption(session, tenant_id, job_id)
    return len(expired)


def fail_exhausted(session: Session, max_failures: int) -> int:
    """Fail the pending jobs with `max_failures` failures since their last progress; return their number."""
    # The exact reason is in the operator's log only: it names internal processes and files.
    message = f"The training failed {max_failures} times in a row at the same place and was given up"
    failed = queue.update(
        session,
        TuningJob.state == JobState.PENDING,
        TuningJob.failures >= max_failures,
        state=JobState.FAILED,
        finished_at=now(),
        error={"code": "training_crashed", "message": message, "param": None},
    )
    for job_id, tenant_id in failed:
        add_event(session, tenant_id, job_id, message, level=EventLevel.ERROR)
    return len(failed)


def record_progress(
    session: Session, job_id: str, attempt: int, progress: Mapping[str, Any], *, seconds_left: float | None
) -> bool:
    """Store the progress of a leased job; False for a stale attempt."""
    finish = None if seconds_left is None else now() + seconds_left
    return queue.update_leased(session, job_id, attempt, progress=dict(progress), estimated_finish=finish)


def record_epoch(
    session: Session, job_id: str, attempt: int, epoch: int, message: str, metrics: Mapping[str, Any]
) -> bool:
    """Add an epoch's metrics as an event, once for each epoch; False for a stale attempt."""
    if queue.update_leased(session, job_id, attempt, TuningJob.epochs_recorded < epoch, epochs_recorded=epoch):
        add_event(session, session.get_one(TuningJob, job_id).tenant_id, job_id, message, metrics=metrics)
        return True
    return (job_id, attempt) in leased(session)


def record_checkpoint(session: Session, job_id: str, attempt: int, path: str, step: int) -> bool:
    """Let the next attempt resume from the checkpoint at `path`; False for a stale attempt.

    Progress resets `failures`: what ended earlier attempts has been passed.
    """
    failures = case((TuningJob.checkpoint_step < step, 0), else_=TuningJob.failures)
    values = {"checkpoint_path": path, "checkpoint_step": step, "failures": failures}
    return queue.update_leased(session, job_id, attempt, **values)


def leased(session: Session) -> set[tuple[str, int]]:
    """Id and attempt of the leased jobs."""
    rows = session.execute(select(TuningJob.id, TuningJob.attempt).where(TuningJob.state == JobState.LEASED))
    return {(row[0], row[1]) for row in rows}


def open_jobs(session: Session) -> set[str]:
    """Ids of the jobs that have not ended."""
    return set(session.scalars(select(TuningJob.id).where(TuningJob.state.in_(OPEN_JOB))))


def _add_interruption(session: Session, tenant_id: str, job_id: str) -> None:
    message = "The training was interrupted; it will resume from its last checkpoint"
    add_event(session, tenant_id, job_id, message, level=EventLevel.WARN)
