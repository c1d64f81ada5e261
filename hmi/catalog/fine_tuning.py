"""Fine-tuning jobs as their tenants see them: create, list, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import Page, execute_dml, insert_or, now, read_page
from hmi.catalog.queue import training_events
from hmi.catalog.registry import bases, domains, files, names, tenants
from hmi.catalog.schema import OPEN_JOB, EventLevel, File, JobState, TuningJob, new_id
from hmi.errors import InvalidInput, NotFound, Overloaded
from hmi.spec import MissPolicy

_ID = "ftjob-"
_NAME_DIGITS = 12  # of the job's id, in a generated name
_NAME_STEM = 50


@dataclass(frozen=True, slots=True)
class NewTuningJob:
    """A job to create; its files are validated."""

    model: str  # as requested
    base: str  # its name
    domain: str  # its name
    miss_policy: MissPolicy
    suffix: str | None  # the new model's name without the tenant's; None generates one
    training_file_id: str
    validation_file_id: str | None
    examples: int
    cost: int  # tokens of all epochs
    request: Mapping[str, Any] = field(hash=False)  # identifies a repeated request
    config: Mapping[str, Any] = field(hash=False)  # the training plan, for the worker
    attributes: Mapping[str, Any] = field(hash=False)  # the caller's `metadata`
    warnings: tuple[str, ...] = ()  # from validating the files, for the job's first events


def create_job(
    session: Session, tenant_id: str, new: NewTuningJob, *, idempotency_key: str | None, max_open: int
) -> TuningJob:
    """Accept a job. A second call with the tenant's `idempotency_key` returns the first job, also when two race.

    Raises: `NotFound` (file, base model or domain), `Overloaded` if the tenant has `max_open` open jobs, `InvalidInput`
        (the name, the metadata; a key that was used for another request).
    """
    names.check_idempotency_key(idempotency_key)
    names.check_json(dict(new.attributes), param="metadata")
    if new.suffix is not None:
        names.check_model_name(new.suffix, param="suffix")
    tenants.lock_tenant(session, tenant_id)
    first = find_job(session, tenant_id, idempotency_key) if idempotency_key is not None else None
    if first is not None:
        if first.request != dict(new.request):
            raise names.reused_idempotency_key(first.id)
        return first
    paths = _lock_files(session, tenant_id, new)
    domains.lock_domains(session, shared=True)
    domain = domains.get_domain(session, new.domain, tenant_id=tenant_id, param="hmi.domain")
    base = bases.get_base(session, new.base)
    check_quota(session, tenant_id, max_open)
    job_id = new_id(_ID)
    values = {
        **{each.name: getattr(new, each.name) for each in fields(new) if each.name not in ("suffix", "warnings")},
        "id": job_id,
        "tenant_id": tenant_id,
        "base_id": base.id,
        "domain_id": domain.id,
        "target": new.suffix or _generate_name(new.model, job_id),
        "training_path": paths[new.training_file_id],
        "validation_path": paths[new.validation_file_id] if new.validation_file_id else None,
        "idempotency_key": idempotency_key,
        "created_at": now(),
    }
    execute_dml(session, insert_or(session, TuningJob).values(**values))
    training_events.add_event(session, tenant_id, job_id, f"Created fine-tuning job: {job_id}")
    for warning in new.warnings:
        training_events.add_event(session, tenant_id, job_id, warning, level=EventLevel.WARN)
    return get_job(session, tenant_id, job_id)


def check_quota(session: Session, tenant_id: str, max_open: int) -> None:
    """Raises `Overloaded` if the tenant has `max_open` open jobs."""
    mine = select(func.count()).where(TuningJob.tenant_id == tenant_id, TuningJob.state.in_(OPEN_JOB))
    if session.scalars(mine).one() >= max_open:
        raise Overloaded(
            f"{max_open} fine-tuning jobs wait or run already, which is the limit", code="active_jobs_exceeded"
        )


def get_job(session: Session, tenant_id: str, job_id: str) -> TuningJob:
    """Raises `NotFound`, the same for an unknown and for another tenant's job."""
    job = session.scalars(
        select(TuningJob).where(TuningJob.tenant_id == tenant_id, TuningJob.id == job_id)
    ).one_or_none()
    if job is None:
        raise NotFound(
            f"there is no fine-tuning job {job_id[:80]!r}", code="fine_tune_not_found", param="fine_tuning_job_id"
        )
    return job


def find_job(session: Session, tenant_id: str, idempotency_key: str) -> TuningJob | None:
    """Return the job that the tenant created with this key, if there is one."""
    mine = (TuningJob.tenant_id == tenant_id, TuningJob.idempotency_key == idempotency_key)
    return session.scalars(select(TuningJob).where(*mine)).one_or_none()


def list_jobs(session: Session, tenant_id: str, *, after: str | None = None, limit: int = 20) -> Page[TuningJob]:
    """Return a page, newest first. Raises `InvalidInput` for an unknown `after`."""
    return read_page(session, TuningJob, select(TuningJob), tenant_id, after=after, limit=limit, order="desc")


def cancel_job(session: Session, tenant_id: str, job_id: str) -> TuningJob:
    """End a job at once; a worker that runs it loses its lease. A second call changes nothing.

    Raises `NotFound`, `InvalidInput` if the job has succeeded or failed.
    """
    ended = execute_dml(
        session,
        update(TuningJob)
        .where(TuningJob.tenant_id == tenant_id, TuningJob.id == job_id, TuningJob.state.in_(OPEN_JOB))
        .values(state=JobState.CANCELLED, finished_at=now(), lease_until=None, estimated_finish=None),
    )
    if ended:
        training_events.add_event(session, tenant_id, job_id, "The job was cancelled")
    job = get_job(session, tenant_id, job_id)
    if job.state is not JobState.CANCELLED:
        raise InvalidInput(f"fine-tuning job {job_id} has {job.state} and cannot be cancelled")
    return job


def _lock_files(session: Session, tenant_id: str, new: NewTuningJob) -> dict[str, str]:
    """Lock the job's files against deletion until the commit; return their paths by id."""
    params = {new.training_file_id: "training_file"}
    if new.validation_file_id is not None:
        params.setdefault(new.validation_file_id, "validation_file")
    # In one order, so that two jobs with the same files do not deadlock.
    locked = select(File.id).where(File.tenant_id == tenant_id, File.id.in_(params)).order_by(File.id)
    session.execute(locked.with_for_update(read=True, key_share=True))
    paths = {}
    for file_id, param in params.items():
        try:
            paths[file_id] = files.get_file(session, tenant_id, file_id).path
        except NotFound as error:
            raise NotFound(error.message, code=error.code, param=param) from None
    return paths


def _generate_name(model: str, job_id: str) -> str:
    """Generate a unique name: the name of the start model and digits of the job's id."""
    return f"{model.rpartition('/')[2][:_NAME_STEM]}-{job_id.removeprefix(_ID)[:_NAME_DIGITS]}"
