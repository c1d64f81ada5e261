"""/v1/fine_tuning/jobs: labelled text in, a model of the tenant's out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import BackgroundTasks, Path, Request

from api.fine_tuning.order import find_start, order_job, request_of
from api.idempotency import IdempotencyKey, RetryCount, digest_of, find_recent, require_same
from api.routing import After, Caller, Limit, Served, errors, tenant_router
from hmi.catalog import JobState, TuningJob, fine_tuning, training_events
from hmi.errors import InvalidInput
from hmi.jobs import TaskName
from hmi.schemas import EventObject, JobCreate, JobObject, Page

router = tenant_router("/v1/fine_tuning/jobs", "Fine-tuning")

JobId = Annotated[str, Path(description="`ftjob-...`", max_length=64)]

_STATUS = {
    JobState.PENDING: "queued",
    JobState.QUEUED: "queued",
    JobState.LEASED: "running",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


@router.post("", summary="Start a fine-tuning job", responses=errors(404, 413, 429))
def create_job(
    services: Served,
    caller: Caller,
    background: BackgroundTasks,
    body: JobCreate,
    idempotency_key: IdempotencyKey = None,
    retry_count: RetryCount = 0,
) -> JobObject:
    """Check the files and train a model of yours on them.

    Files are JSON lines, or CSV where their name ends so. A line is `{"text", "label"}`, `{"text", "labels": [...]}`,
    `{"tokens": [...], "tags": [...]}`, `{"text", "spans": [{"start", "end", "label"}]}`, `{"text", "positive",
    "negative"}`, or OpenAI's `{"messages": [...]}` of one text and its label. For a decoder it is `{"prompt",
    "completion"}`, `{"text"}`, or `{"messages": [...]}` that end with the answer which is learnt. A file with lines
    that nothing can be learnt from is refused, naming the lines.

    Sent again with the same `Idempotency-Key`, this returns the first job.
    """
    tenant_id, key, request = caller.tenant_id, digest_of(idempotency_key), request_of(body)
    with services.database.session(read_only=True) as session:
        # Before the files are looked up: they may have been deleted since.
        first = fine_tuning.find_job(session, tenant_id, key) if key else None
        if retry_count and not key:
            first = find_recent(
                session,
                lambda after, limit: fine_tuning.list_jobs(session, tenant_id, after=after, limit=limit),
                lambda job: (job.created_at, job.id),
                lambda job: bool(job.request == request),
            )
        if first is not None:
            require_same(first.request == request, "fine-tuning job")
            return _view(first, caller.tenant_name)
        start = find_start(services, session, caller, body)
        # Before the files are read, which costs more; `create_job` decides.
        fine_tuning.check_quota(session, tenant_id, services.settings.max_open_trainings_per_tenant)
    new = order_job(services, start, body)
    with services.database.session() as session:
        most = services.settings.max_open_trainings_per_tenant
        job = fine_tuning.create_job(session, tenant_id, new, idempotency_key=key, max_open=most)
    background.add_task(services.hint, TaskName.DISPATCH)
    require_same(job.request == request, "fine-tuning job")
    return _view(job, caller.tenant_name)


@router.get("", summary="List fine-tuning jobs")
def list_jobs(
    services: Served, caller: Caller, request: Request, after: After = None, limit: Limit = 20
) -> Page[JobObject]:
    """Your jobs, newest first."""
    if filters := [name for name in request.query_params if name.startswith("metadata")]:
        raise InvalidInput("jobs are not listed by their metadata", code="unknown_parameter", param=filters[0][:80])
    with services.database.session(read_only=True) as session:
        page = fine_tuning.list_jobs(session, caller.tenant_id, after=after, limit=limit)
    return Page[JobObject].of([_view(job, caller.tenant_name) for job in page.items], has_more=page.has_more)


@router.get("/{fine_tuning_job_id}", summary="Look at a fine-tuning job", responses=errors(404))
def retrieve_job(services: Served, caller: Caller, fine_tuning_job_id: JobId) -> JobObject:
    """Its status and how far it is; at the end its model and its report."""
    with services.database.session(read_only=True) as session:
        job = fine_tuning.get_job(session, caller.tenant_id, fine_tuning_job_id)
    return _view(job, caller.tenant_name)


@router.post("/{fine_tuning_job_id}/cancel", summary="Cancel a fine-tuning job", responses=errors(404))
def cancel_job(services: Served, caller: Caller, background: BackgroundTasks, fine_tuning_job_id: JobId) -> JobObject:
    """It ends at once and leaves no model. Cancelling again changes nothing; one that has ended cannot be cancelled."""
    with services.database.session() as session:
        job = fine_tuning.cancel_job(session, caller.tenant_id, fine_tuning_job_id)
    background.add_task(services.hint, TaskName.RECONCILE)
    return _view(job, caller.tenant_name)


@router.get("/{fine_tuning_job_id}/events", summary="What happened to a fine-tuning job", responses=errors(404))
def list_events(
    services: Served, caller: Caller, fine_tuning_job_id: JobId, after: After = None, limit: Limit = 20
) -> Page[EventObject]:
    """Newest first. Each epoch has one of type `metrics`."""
    with services.database.session(read_only=True) as session:
        fine_tuning.get_job(session, caller.tenant_id, fine_tuning_job_id)
        page = training_events.list_events(session, caller.tenant_id, fine_tuning_job_id, after=after, limit=limit)
    return Page[EventObject].of([EventObject.model_validate(event) for event in page.items], has_more=page.has_more)


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


def _view(job: TuningJob, tenant: str) -> JobObject:
    config = job.config["config"]
    chosen = {
        "n_epochs": config["epochs"],
        "batch_size": config["batch_size"],
        "learning_rate_multiplier": job.config["learning_rate_multiplier"],
    }
    return JobObject(
        id=job.id,
        created_at=job.created_at,
        estimated_finish=job.estimated_finish,
        finished_at=job.finished_at,
        status=_STATUS[job.state],
        error=job.error,
        model=job.model,
        fine_tuned_model=job.fine_tuned_model,
        organization_id=tenant,
        training_file=job.training_file_id,
        validation_file=job.validation_file_id,
        result_files=[] if job.result_file_id is None else [job.result_file_id],
        trained_tokens=job.trained_tokens,
        hyperparameters=chosen,
        method={"supervised": {"hyperparameters": chosen}},
        seed=config["seed"],
        metadata=job.attributes or None,
        hmi={
            "task": job.config["task"],
            "base": job.base,
            "domain": job.domain,
            "miss_policy": job.miss_policy,
            "kind": config["kind"],
            "rank": config["rank"],
            "max_tokens": config["max_tokens"],
            "suffix": job.target,
            "examples": job.examples,
            "started_at": job.started_at,
            "progress": job.progress,
        },
    )
