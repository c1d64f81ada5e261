"""/v1/fine_tuning/jobs: labelled text in, a model of the tenant's out."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Header, Path, Query, Request
from sqlalchemy.orm import Session

from api.dependencies import AuthenticatedRoute, Caller, Served, bearer
from api.schemas.common import Page, errors
from api.schemas.fine_tuning import EventObject, JobCreate, JobObject
from api.training_orders import find_start, order_job, request_of
from hmi.catalog import Principal, TuningJob, database_time, fine_tuning, training_events
from hmi.errors import InvalidInput
from hmi.jobs import TaskName

__all__ = ["router"]

_TWIN_SECONDS = 600  # a client's retry is the same job for so long
_PAGE = 100

router = APIRouter(
    prefix="/v1/fine_tuning/jobs",
    tags=["Fine-tuning"],
    route_class=AuthenticatedRoute,
    dependencies=[Depends(bearer)],
    responses=errors(401),
)

JobId = Annotated[str, Path(description="`ftjob-...`", max_length=64)]
After = Annotated[str | None, Query(description="Last id of the page before.", max_length=64)]
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("", summary="Start a fine-tuning job", responses=errors(404, 413, 429))
def create_job(
    services: Served,
    caller: Caller,
    background: BackgroundTasks,
    body: JobCreate,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    x_stainless_retry_count: Annotated[int, Header(ge=0, le=1000, include_in_schema=False)] = 0,
) -> JobObject:
    """Check the files and train a model of yours on them.

    Files are JSON lines, or CSV where their name ends so. A line is `{"text", "label"}`, `{"text", "labels": [...]}`,
    `{"tokens": [...], "tags": [...]}`, `{"text", "spans": [{"start", "end", "label"}]}`, `{"text", "positive",
    "negative"}`, or OpenAI's `{"messages": [...]}` of one text and its label. For a decoder it is `{"prompt",
    "completion"}`, `{"text"}`, or `{"messages": [...]}` that end with the answer which is learnt. A file with lines
    that nothing can be learnt from is refused, naming the lines.

    Sent again with the same `Idempotency-Key`, this returns the first job.
    """
    tenant_id = caller.tenant_id
    key = idempotency_key and hashlib.sha256(idempotency_key.encode()).hexdigest()
    with services.database.session(read_only=True) as session:
        # Before the files are looked for: they may have been deleted since.
        if key:
            twin = fine_tuning.find_job(session, tenant_id, key)
        else:
            # The official client repeats a request that timed out without any key of its own.
            twin = _recent_twin(session, tenant_id, body) if x_stainless_retry_count else None
        if twin is not None:
            return _as_asked(twin, caller, body)
        start = find_start(services, session, caller, body)
        # Before the files are read, which costs more; `create_job` decides.
        fine_tuning.check_quota(session, tenant_id, services.settings.max_open_trainings_per_tenant)
    new = order_job(services, start, body)
    with services.database.session() as session:
        job = fine_tuning.create_job(
            session,
            tenant_id,
            new,
            idempotency_key=key,
            max_open=services.settings.max_open_trainings_per_tenant,
        )
    background.add_task(services.hint, TaskName.DISPATCH)
    return _as_asked(job, caller, body)


@router.get("", summary="List fine-tuning jobs")
def list_jobs(
    services: Served, caller: Caller, request: Request, after: After = None, limit: Limit = 20
) -> Page[JobObject]:
    """Your jobs, newest first."""
    if filters := [name for name in request.query_params if name.startswith("metadata")]:
        raise InvalidInput("jobs are not listed by their metadata", code="unknown_parameter", param=filters[0][:80])
    with services.database.session(read_only=True) as session:
        page = fine_tuning.list_jobs(session, caller.tenant_id, after=after, limit=limit)
    data = [JobObject.from_row(job, caller.tenant_name) for job in page.items]
    return Page(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.has_more,
    )


@router.get("/{fine_tuning_job_id}", summary="Look at a fine-tuning job", responses=errors(404))
def retrieve_job(services: Served, caller: Caller, fine_tuning_job_id: JobId) -> JobObject:
    """Its status and how far it is; at the end its model and its report."""
    with services.database.session(read_only=True) as session:
        job = fine_tuning.get_job(session, caller.tenant_id, fine_tuning_job_id)
    return JobObject.from_row(job, caller.tenant_name)


@router.post("/{fine_tuning_job_id}/cancel", summary="Cancel a fine-tuning job", responses=errors(404))
def cancel_job(services: Served, caller: Caller, background: BackgroundTasks, fine_tuning_job_id: JobId) -> JobObject:
    """It ends at once and leaves no model. Cancelling again changes nothing; one that has ended cannot be cancelled."""
    with services.database.session() as session:
        job = fine_tuning.cancel_job(session, caller.tenant_id, fine_tuning_job_id)
    background.add_task(services.hint, TaskName.RECONCILE)
    return JobObject.from_row(job, caller.tenant_name)


@router.get("/{fine_tuning_job_id}/events", summary="What happened to a fine-tuning job", responses=errors(404))
def list_events(
    services: Served, caller: Caller, fine_tuning_job_id: JobId, after: After = None, limit: Limit = 20
) -> Page[EventObject]:
    """Newest first. Each epoch has one of type `metrics`."""
    with services.database.session(read_only=True) as session:
        fine_tuning.get_job(session, caller.tenant_id, fine_tuning_job_id)
        page = training_events.list_events(session, caller.tenant_id, fine_tuning_job_id, after=after, limit=limit)
    data = [EventObject.from_row(event) for event in page.items]
    return Page(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.has_more,
    )


@router.get("/{fine_tuning_job_id}/checkpoints", summary="Models that a job left on its way", responses=errors(404))
def list_checkpoints(
    services: Served, caller: Caller, fine_tuning_job_id: JobId, after: After = None, limit: Limit = 20
) -> Page[dict[str, Any]]:
    """None: of all epochs the best one's weights become the job's model, and no others can be called."""
    with services.database.session(read_only=True) as session:
        fine_tuning.get_job(session, caller.tenant_id, fine_tuning_job_id)
    if after is not None:
        raise InvalidInput(f"there is nothing with the id {after[:80]!r} to list after", param="after")
    return Page(data=[], first_id=None, last_id=None, has_more=False)


def _recent_twin(session: Session, tenant_id: str, body: JobCreate) -> TuningJob | None:
    """The tenant's newest job that this very request could have started in the last ten minutes."""
    since, after, request = database_time(session) - _TWIN_SECONDS, None, request_of(body)
    while True:
        page = fine_tuning.list_jobs(session, tenant_id, after=after, limit=_PAGE)
        for job in page.items:
            if job.created_at < since:
                return None
            if job.request == request:
                return job
        if not page.has_more:
            return None
        after = page.items[-1].id


def _as_asked(job: TuningJob, caller: Principal, body: JobCreate) -> JobObject:
    """Raises `InvalidInput` where the key that led to this job had been used for another request."""
    if job.request != request_of(body):
        raise InvalidInput(
            "this Idempotency-Key was used for another fine-tuning job",
            code="idempotency_key_reused",
            param="Idempotency-Key",
        )
    return JobObject.from_row(job, caller.tenant_name)
