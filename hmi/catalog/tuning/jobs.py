"""Fine-tuning jobs as their tenants see them: make, look at, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from hmi.catalog.bases import get_base
from hmi.catalog.database import change, insert_or, now
from hmi.catalog.domains import get_domain
from hmi.catalog.files import get_file
from hmi.catalog.names import check_json, check_model_name, check_text
from hmi.catalog.pages import Page, read_page
from hmi.catalog.tables import File, Tenant, new_id
from hmi.catalog.tuning.events import add_event
from hmi.catalog.tuning_states import OPEN
from hmi.catalog.tuning_tables import EventLevel, TuningJob, TuningState
from hmi.errors import InvalidInput, NotFound, Overloaded
from hmi.spec import MissPolicy

__all__ = ["NewTuningJob", "cancel_job", "check_quota", "create_job", "find_job", "get_job", "list_jobs"]

_MAX_IDEMPOTENCY_KEY = 128
_ID = "ftjob-"
_NAME_DIGITS = 12  # of the job's id, in the name of a model that was given none
_NAME_STEM = 50


@dataclass(frozen=True, slots=True)
class NewTuningJob:
    """A job to be made; its files were read and found fit.

    Attributes:
        model: As asked for.
        base, domain: Names.
        suffix: What the model shall be called, without the tenant's name; None gives it a name of its own.
        request: What was asked for, by which a repeated request is known.
        config: What is done, for the worker.
        cost: Tokens of all epochs.
        attributes: The caller's `metadata`.
        warnings: Of what the files hold, for the job's first events.
    """

    model: str
    base: str
    domain: str
    miss_policy: MissPolicy
    suffix: str | None
    training_file_id: str
    validation_file_id: str | None
    examples: int
    cost: int
    request: Mapping[str, Any] = field(hash=False)
    config: Mapping[str, Any] = field(hash=False)
    attributes: Mapping[str, Any] = field(hash=False)
    warnings: tuple[str, ...] = ()


def create_job(
    session: Session, tenant_id: str, new: NewTuningJob, *, idempotency_key: str | None, max_open: int
) -> TuningJob:
    """Accept a job. The tenant's equal `idempotency_key` gives the one that was made first, also when two calls race.

    Raises: `NotFound` (file, base model or domain, meanwhile), `Overloaded` where the tenant has `max_open` jobs that
        have not ended, `InvalidInput` (the name, the metadata; a key that was used for another request).
    """
    if idempotency_key is not None:
        check_text(idempotency_key, param="Idempotency-Key", max_length=_MAX_IDEMPOTENCY_KEY)
    check_json(dict(new.attributes), param="metadata")
    if new.suffix is not None:
        check_model_name(new.suffix, param="suffix")
    # One at a time of a tenant from here: the quota is counted, then used.
    if session.scalars(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True)).first() is None:
        raise NotFound(f"there is no tenant {tenant_id}")
    first = find_job(session, tenant_id, idempotency_key) if idempotency_key is not None else None
    if first is not None:
        return _same_request(first, new)
    files = _hold_files(session, tenant_id, new)
    base, domain = get_base(session, new.base), get_domain(session, new.domain)
    check_quota(session, tenant_id, max_open)
    job_id = new_id(_ID)
    values = {
        "id": job_id,
        "tenant_id": tenant_id,
        "model": new.model,
        "base": base.name,
        "base_id": base.id,
        "domain": domain.name,
        "domain_id": domain.id,
        "miss_policy": new.miss_policy,
        "target": new.suffix or _own_name(new.model, job_id),
        "training_file_id": new.training_file_id,
        "training_path": files[new.training_file_id].path,
        "validation_file_id": new.validation_file_id,
        "validation_path": files[new.validation_file_id].path if new.validation_file_id else None,
        "request": dict(new.request),
        "config": dict(new.config),
        "examples": new.examples,
        "cost": new.cost,
        "attributes": dict(new.attributes),
        "idempotency_key": idempotency_key,
        "created_at": now(),
    }
    change(session, insert_or(session, TuningJob).values(**values))
    add_event(session, tenant_id, job_id, f"Created fine-tuning job: {job_id}")
    for warning in new.warnings:
        add_event(session, tenant_id, job_id, warning, level=EventLevel.WARN)
    return get_job(session, tenant_id, job_id)


def check_quota(session: Session, tenant_id: str, max_open: int) -> None:
    """Raises `Overloaded` where the tenant has `max_open` jobs that have not ended."""
    mine = select(func.count()).where(TuningJob.tenant_id == tenant_id, TuningJob.state.in_(OPEN))
    if session.scalars(mine).one() >= max_open:
        raise Overloaded(
            f"{max_open} fine-tuning jobs wait or run already, which is the limit", code="active_jobs_exceeded"
        )


def get_job(session: Session, tenant_id: str, job_id: str) -> TuningJob:
    """Raises `NotFound`, the same for an unknown and for another tenant's job."""
    job = session.scalars(
        select(TuningJob)
        .where(TuningJob.tenant_id == tenant_id, TuningJob.id == job_id)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if job is None:
        raise NotFound(
            f"there is no fine-tuning job {job_id[:80]!r}", code="fine_tune_not_found", param="fine_tuning_job_id"
        )
    return job


def find_job(session: Session, tenant_id: str, idempotency_key: str) -> TuningJob | None:
    """The job that the tenant made with this key, if there is one."""
    mine = (TuningJob.tenant_id == tenant_id, TuningJob.idempotency_key == idempotency_key)
    return session.scalars(select(TuningJob).where(*mine)).one_or_none()


def list_jobs(session: Session, tenant_id: str, *, after: str | None = None, limit: int = 20) -> Page[TuningJob]:
    """Newest first. Raises `InvalidInput` for an unknown `after`."""
    return read_page(session, TuningJob, select(TuningJob), tenant_id, after=after, limit=limit, order="desc")


def cancel_job(session: Session, tenant_id: str, job_id: str) -> TuningJob:
    """End a job here and now; a worker that runs it finds its lease gone. Again it is no change.

    Raises `NotFound`, `InvalidInput` where the job has succeeded or failed.
    """
    ended = change(
        session,
        update(TuningJob)
        .where(TuningJob.tenant_id == tenant_id, TuningJob.id == job_id, TuningJob.state.in_(OPEN))
        .values(state=TuningState.CANCELLED, finished_at=now(), lease_until=None, estimated_finish=None),
    )
    if ended:
        add_event(session, tenant_id, job_id, "The job was cancelled")
    job = get_job(session, tenant_id, job_id)
    if job.state is not TuningState.CANCELLED:
        raise InvalidInput(f"fine-tuning job {job_id} has {job.state} and cannot be cancelled")
    return job


def _hold_files(session: Session, tenant_id: str, new: NewTuningJob) -> dict[str, File]:
    """The job's files, which cannot be deleted before the commit, and after it are read by the job."""
    wanted = {new.training_file_id: "training_file"}
    if new.validation_file_id is not None:
        wanted.setdefault(new.validation_file_id, "validation_file")
    # In one order, so that two that lock the same files do not wait for each other.
    locked = select(File.id).where(File.tenant_id == tenant_id, File.id.in_(wanted)).order_by(File.id)
    session.execute(locked.with_for_update(read=True, key_share=True))
    files = {}
    for file_id, param in wanted.items():
        try:
            files[file_id] = get_file(session, tenant_id, file_id)
        except NotFound as error:
            raise NotFound(error.message, code=error.code, param=param) from None
    return files


def _own_name(model: str, job_id: str) -> str:
    """A name that no other model has: what the training started from, and digits of the job's id."""
    return f"{model.rpartition('/')[2][:_NAME_STEM]}-{job_id.removeprefix(_ID)[:_NAME_DIGITS]}"


def _same_request(job: TuningJob, new: NewTuningJob) -> TuningJob:
    if job.request != dict(new.request):
        raise InvalidInput(
            f"this Idempotency-Key belongs to {job.id}, which is another request",
            code="idempotency_key_reused",
            param="Idempotency-Key",
        )
    return job
