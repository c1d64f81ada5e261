"""/v1/batches: many requests from a file, answered into a file."""

from __future__ import annotations

from typing import Annotated

from fastapi import BackgroundTasks, Path

from api.files import get_file, open_content
from api.idempotency import IdempotencyKey, RetryCount, digest_of, find_recent, require_same
from api.routing import After, Caller, Limit, Served, errors, tenant_router
from hmi.catalog import BatchView, NewBatch, batches
from hmi.jobs import TaskName, check_input
from hmi.schemas import BatchCreate, BatchObject, Page

router = tenant_router("/v1/batches", "Batches")

BatchId = Annotated[str, Path(description="`batch_...`", max_length=64)]


@router.post("", summary="Start a batch", responses=errors(404, 413, 429, 507))
def create_batch(
    services: Served,
    caller: Caller,
    background: BackgroundTasks,
    body: BatchCreate,
    idempotency_key: IdempotencyKey = None,
    retry_count: RetryCount = 0,
) -> BatchObject:
    """Check the file's lines and start answering them.

    A file with lines that cannot be answered gives a batch of status `failed` whose `errors` name the lines;
    none of it runs. What is wrong inside a line's `body` becomes that line's own entry in the error file.

    Sent again with the same `Idempotency-Key`, this returns the first batch.
    """
    tenant_id, key = caller.tenant_id, digest_of(idempotency_key)
    with services.database.session(read_only=True) as session:
        # Before the file is looked up: it may have been deleted since.
        first = batches.find_batch(session, tenant_id, key) if key else None
        if retry_count and not key:
            first = find_recent(
                session,
                lambda after, limit: batches.list_batches(session, tenant_id, after=after, limit=limit),
                lambda view: (view.batch.created_at, view.batch.id),
                lambda view: _is_same(view, body),
            )
        if first is not None:
            require_same(_is_same(first, body), "batch")
            return _view(first)
        file = get_file(session, tenant_id, body.input_file_id, "input_file_id", purpose="batch")
    with open_content(services, file) as stream:
        checked = check_input(
            stream, endpoint=body.endpoint, limits=services.limits, shard_lines=services.settings.shard_lines
        )
    with services.database.session() as session:
        batch = batches.create_batch(
            session,
            tenant_id,
            NewBatch(
                endpoint=body.endpoint,
                completion_window=body.completion_window,
                window_seconds=body.window_seconds,
                input_file=get_file(session, tenant_id, body.input_file_id, "input_file_id"),
                total_lines=checked.total_lines,
                shards=checked.shards,
                attributes=body.metadata or {},
                problems=checked.problems,
            ),
            idempotency_key=key,
            max_queued_lines=services.settings.max_queued_lines_per_tenant,
        )
        view = batches.get_batch(session, tenant_id, batch.id)
    background.add_task(services.hint, TaskName.DISPATCH)
    require_same(_is_same(view, body), "batch")
    return _view(view)


@router.get("", summary="List batches")
def list_batches(services: Served, caller: Caller, after: After = None, limit: Limit = 20) -> Page[BatchObject]:
    """Your batches, newest first."""
    with services.database.session(read_only=True) as session:
        page = batches.list_batches(session, caller.tenant_id, after=after, limit=limit)
    return Page[BatchObject].of([_view(each) for each in page.items], has_more=page.has_more)


@router.get("/{batch_id}", summary="Look at a batch", responses=errors(404))
def retrieve_batch(services: Served, caller: Caller, batch_id: BatchId) -> BatchObject:
    """Its status, counts and, at the end, the ids of its files."""
    with services.database.session(read_only=True) as session:
        return _view(batches.get_batch(session, caller.tenant_id, batch_id))


@router.post("/{batch_id}/cancel", summary="Cancel a batch", responses=errors(404))
def cancel_batch(services: Served, caller: Caller, background: BackgroundTasks, batch_id: BatchId) -> BatchObject:
    """Drop the lines that have not begun. Running ones finish, and all results so far are in the output file.

    Cancelling again changes nothing; a batch that has ended cannot be cancelled.
    """
    with services.database.session() as session:
        batches.cancel_batch(session, caller.tenant_id, batch_id)
        view = batches.get_batch(session, caller.tenant_id, batch_id)
    background.add_task(services.hint, TaskName.RECONCILE)
    return _view(view)


def _is_same(view: BatchView, body: BatchCreate) -> bool:
    batch = view.batch
    return (batch.input_file_id, batch.endpoint, batch.completion_window, batch.attributes) == (
        body.input_file_id,
        body.endpoint,
        body.completion_window,
        body.metadata or {},
    )


def _view(view: BatchView) -> BatchObject:
    batch = view.batch
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        errors={"data": batch.errors} if batch.errors else None,
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=batch.created_at,
        in_progress_at=batch.in_progress_at,
        expires_at=batch.expires_at,
        finalizing_at=batch.finalizing_at,
        completed_at=batch.completed_at,
        failed_at=batch.failed_at,
        expired_at=batch.expired_at,
        cancelling_at=batch.cancelling_at,
        cancelled_at=batch.cancelled_at,
        request_counts={"total": batch.total_lines, "completed": view.completed, "failed": view.failed},
        usage={
            "input_tokens": view.input_tokens,
            "output_tokens": view.output_tokens,
            "total_tokens": view.input_tokens + view.output_tokens,
        },
        metadata=batch.attributes or None,
    )
