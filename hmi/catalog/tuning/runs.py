"""Fine-tuning jobs as their workers see them: claim, say how far, keep a checkpoint, end.

Every change is one conditional UPDATE that names the job's attempt and the state it starts from: whoever comes late
changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, select, tuple_, update
from sqlalchemy.orm import Session

from hmi.catalog.bases import spec_of
from hmi.catalog.database import change, now
from hmi.catalog.deltas import nearest_deltas
from hmi.catalog.tables import BaseModel, Domain
from hmi.catalog.tenants import Principal, principal_of
from hmi.catalog.tuning.dispatching import TuningMessage
from hmi.catalog.tuning.events import add_event
from hmi.catalog.tuning.recovery import INTERRUPTED
from hmi.catalog.tuning_tables import EventLevel, TuningJob, TuningState
from hmi.spec import HPLMSpec, MissPolicy

__all__ = [
    "ClaimedJob",
    "claim",
    "decline",
    "extend",
    "give_back",
    "keep_checkpoint",
    "say_epoch",
    "say_progress",
]


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """What a worker needs to train.

    Attributes:
        base, domain: Names; None where what the job was made for is gone.
        base_artifact, spec: The base model's digest and shapes.
        delta: Digest of the nearest domain delta on the domain's line of ancestors; None where there is none.
        checkpoint_path: In the storage, where an earlier attempt left one.
        epochs_said: Of so many epochs the events have the metrics.
    """

    job_id: str
    attempt: int
    principal: Principal
    base: str | None
    base_artifact: str | None
    spec: HPLMSpec | None
    domain: str | None
    delta: str | None
    miss_policy: MissPolicy
    target: str
    training_path: str
    validation_path: str | None
    config: Mapping[str, Any] = field(hash=False)
    checkpoint_path: str | None
    epochs_said: int
    failures: int


def claim(session: Session, job_id: str, attempt: int, *, owner: str, lease_seconds: float) -> ClaimedJob | None:
    """Take a queued job for `lease_seconds`; None where this attempt is not current."""
    queued = and_(_is(job_id, attempt), TuningJob.state == TuningState.QUEUED)
    started = func.coalesce(TuningJob.started_at, now())
    values = {"state": TuningState.LEASED, "owner": owner, "lease_until": now() + lease_seconds, "started_at": started}
    if not change(session, update(TuningJob).where(queued).values(**values)):
        return None
    job = _load(session, job_id)
    going_on = f"Fine-tuning job goes on from step {job.checkpoint_step}"
    started_anew = "Fine-tuning job started" + (" again" if job.progress else "")
    add_event(session, job.tenant_id, job_id, going_on if job.checkpoint_path else started_anew)
    base = session.get(BaseModel, job.base_id) if job.base_id else None
    domain = session.get(Domain, job.domain_id) if job.domain_id else None
    place = (base.id, domain.name) if base and domain else None
    return ClaimedJob(
        job_id=job_id,
        attempt=attempt,
        principal=principal_of(session, job.tenant_id),
        base=base.name if base else None,
        base_artifact=base.artifact if base else None,
        spec=spec_of(base) if base else None,
        domain=domain.name if domain else None,
        delta=nearest_deltas(session, {place}).get(place) if place else None,
        miss_policy=job.miss_policy,
        target=job.target,
        training_path=job.training_path,
        validation_path=job.validation_path,
        config=job.config,
        checkpoint_path=job.checkpoint_path,
        epochs_said=job.epochs_said,
        failures=job.failures,
    )


def decline(session: Session, job_id: str, attempt: int) -> bool:
    """Put a queued job back, for a worker that has its hands full; False where this attempt is not current."""
    queued = and_(_is(job_id, attempt), TuningJob.state == TuningState.QUEUED)
    return change(session, update(TuningJob).where(queued).values(state=TuningState.PENDING)) > 0


def extend(session: Session, claims: Collection[TuningMessage], lease_seconds: float) -> set[str]:
    """Prolong leases to `lease_seconds` from now; gives the ids of the jobs that are still held."""
    if not claims:
        return set()
    held = tuple_(TuningJob.id, TuningJob.attempt).in_([(each.job_id, each.attempt) for each in claims])
    statement = (
        update(TuningJob)
        .where(held, TuningJob.state == TuningState.LEASED)
        .values(lease_until=now() + lease_seconds)
        .returning(TuningJob.id)
    )
    return set(session.scalars(statement, execution_options={"synchronize_session": False}))


def say_progress(
    session: Session, job_id: str, attempt: int, progress: Mapping[str, Any], *, seconds_left: float | None
) -> bool:
    """How far the training is, for whoever watches; False where the job belongs to somebody else or has ended."""
    values = {"progress": dict(progress), "estimated_finish": None if seconds_left is None else now() + seconds_left}
    return change(session, update(TuningJob).where(_is_mine(job_id, attempt)).values(**values)) > 0


def say_epoch(
    session: Session, job_id: str, attempt: int, epoch: int, message: str, metrics: Mapping[str, Any]
) -> bool:
    """An epoch's metrics as an event, once, however often the epoch is trained; False as for `say_progress`."""
    mine = _is_mine(job_id, attempt)
    new = and_(mine, TuningJob.epochs_said < epoch)
    if change(session, update(TuningJob).where(new).values(epochs_said=epoch)):
        add_event(session, _load(session, job_id).tenant_id, job_id, message, metrics=metrics)
        return True
    return session.scalars(select(TuningJob.id).where(mine)).one_or_none() is not None


def keep_checkpoint(session: Session, job_id: str, attempt: int, path: str, step: int) -> bool:
    """Have the next attempt go on from the checkpoint at `path`; False as for `say_progress`.

    A training that got further than ever is not to blame for what ended earlier attempts.
    """
    further = TuningJob.checkpoint_step < step
    values = {
        "checkpoint_path": path,
        "checkpoint_step": step,
        "failures": case((further, 0), else_=TuningJob.failures),
    }
    return change(session, update(TuningJob).where(_is_mine(job_id, attempt)).values(**values)) > 0


def give_back(
    session: Session, job_id: str, attempt: int, *, reason: str, blame: bool, wait_seconds: float = 0.0
) -> bool:
    """Put a leased job back, to be trained further; False where it belongs to somebody else or has ended.

    Args:
        blame: Counts a failure of the job itself, and keeps the reason.
        wait_seconds: How long nobody shall try.
    """
    values: dict[str, Any] = {"state": TuningState.PENDING, "lease_until": None, "estimated_finish": None}
    if wait_seconds:
        values["not_before"] = now() + wait_seconds
    if blame:
        values |= {"failures": TuningJob.failures + 1, "last_failure": reason.replace("\0", "\ufffd")}
    if not change(session, update(TuningJob).where(_is_mine(job_id, attempt)).values(**values)):
        return False
    add_event(session, _load(session, job_id).tenant_id, job_id, INTERRUPTED, level=EventLevel.WARN)
    return True


def _is(job_id: str, attempt: int) -> ColumnElement[bool]:
    return and_(TuningJob.id == job_id, TuningJob.attempt == attempt)


def _is_mine(job_id: str, attempt: int) -> ColumnElement[bool]:
    return and_(_is(job_id, attempt), TuningJob.state == TuningState.LEASED)


def _load(session: Session, job_id: str) -> TuningJob:
    return session.scalars(
        select(TuningJob).where(TuningJob.id == job_id).execution_options(populate_existing=True)
    ).one()
