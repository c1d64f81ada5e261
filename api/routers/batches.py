"""/v1/batches: many requests from a file, answered into a file."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Header, Path, Query
from sqlalchemy.orm import Session

from api.dependencies import AuthenticatedRoute, Caller, Served, bearer
from api.schemas.batches import BatchCreate, BatchObject
from api.schemas.common import Page, errors
from api.services import Services
from hmi.catalog import BatchView, File, NewBatch, batches, database_time, files
from hmi.errors import Corrupt, InvalidInput, NotFound
from hmi.jobs import CheckedInput, TaskName, check_input

__all__ = ["router"]

_TWIN_SECONDS = 600  # a client's retry is the same batch for so long
_PAGE = 100

router = APIRouter(
    prefix="/v1/batches",
    tags=["Batches"],
    route_class=AuthenticatedRoute,
    dependencies=[Depends(bearer)],
    responses=errors(401),
)

BatchId = Annotated[str, Path(description="`batch_...`", max_length=64)]


@router.post("", summary="Start a batch", responses=errors(404, 413, 429, 507))
def create_batch(
    services: Served,
    caller: Caller,
    background: BackgroundTasks,
    body: BatchCreate,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    x_stainless_retry_count: Annotated[int, Header(ge=0, le=1000, include_in_schema=False)] = 0,
) -> BatchObject:
    """Check the file's lines and start answering them.

    A file with lines that cannot be answered gives a batch of status `failed` whose `errors` name the lines;
    none of it runs. What is wrong inside a line's `body` becomes that line's own entry in the error file.

    Sent again with the same `Idempotency-Key`, this returns the first batch.
    """
    tenant_id = caller.tenant_id
    key = idempotency_key and hashlib.sha256(idempotency_key.encode()).hexdigest()
    with services.database.session(read_only=True) as session:
        # Before the file is looked for: it may have been deleted since.
        if key:
            twin = batches.find_batch(session, tenant_id, key)
        else:
            # The official client repeats a request that timed out without any key of its own.
            twin = _recent_twin(session, tenant_id, body) if x_stainless_retry_count else None
        if twin is not None:
            return _as_asked(twin, body)
        file = _input_file(session, tenant_id, body.input_file_id)
    checked = _check(services, file, body.endpoint)
    with services.database.session() as session:
        batch = batches.create_batch(
            session,
            tenant_id,
            NewBatch(
                endpoint=body.endpoint,
                completion_window=body.completion_window,
                window_seconds=body.window_seconds,
                input_file=_input_file(session, tenant_id, body.input_file_id),
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
    return _as_asked(view, body)


@router.get("", summary="List batches")
def list_batches(
    services: Served,
    caller: Caller,
    after: Annotated[str | None, Query(description="Last id of the page before.", max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page[BatchObject]:
    """Your batches, newest first."""
    with services.database.session(read_only=True) as session:
        page = batches.list_batches(session, caller.tenant_id, after=after, limit=limit)
    data = [BatchObject.from_view(view) for view in page.items]
    return Page(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.has_more,
    )


@router.get("/{batch_id}", summary="Look at a batch", responses=errors(404))
def retrieve_batch(services: Served, caller: Caller, batch_id: BatchId) -> BatchObject:
    """Its status, counts and, at the end, the ids of its files."""
    with services.database.session(read_only=True) as session:
        return BatchObject.from_view(batches.get_batch(session, caller.tenant_id, batch_id))


@router.post("/{batch_id}/cancel", summary="Cancel a batch", responses=errors(404))
def cancel_batch(services: Served, caller: Caller, background: BackgroundTasks, batch_id: BatchId) -> BatchObject:
    """Stop what has not begun; what runs is finished, and all results so far are in the output file.

    Cancelling again changes nothing; a batch that has ended cannot be cancelled.
    """
    with services.database.session() as session:
        batches.cancel_batch(session, caller.tenant_id, batch_id)
        view = batches.get_batch(session, caller.tenant_id, batch_id)
    background.add_task(services.hint, TaskName.RECONCILE)
    return BatchObject.from_view(view)


def _input_file(session: Session, tenant_id: str, file_id: str) -> File:
    try:
        file = files.get_file(session, tenant_id, file_id)
    except NotFound as error:
        raise NotFound(error.message, code=error.code, param="input_file_id") from None
    if file.purpose != "batch":
        raise InvalidInput(f"the file's purpose is {file.purpose}, not batch", param="input_file_id")
    return file


def _check(services: Services, file: File, endpoint: str) -> CheckedInput:
    try:
        stream = services.storage.open(file.path)
    except NotFound as error:
        raise Corrupt(f"the content of file {file.id} is lost") from error
    with stream:
        return check_input(stream, endpoint=endpoint, limits=services.limits, shard_lines=services.settings.shard_lines)


def _recent_twin(session: Session, tenant_id: str, body: BatchCreate) -> BatchView | None:
    """The tenant's newest batch that this very request could have started in the last ten minutes."""
    since, after = database_time(session) - _TWIN_SECONDS, None
    while True:
        page = batches.list_batches(session, tenant_id, after=after, limit=_PAGE)
        for view in page.items:
            if view.batch.created_at < since:
                return None
            if _is_same(view, body):
                return view
        if not page.has_more:
            return None
        after = page.items[-1].batch.id


def _as_asked(view: BatchView, body: BatchCreate) -> BatchObject:
    """Raises `InvalidInput` where the key that led to this batch had been used for another request."""
    if not _is_same(view, body):
        raise InvalidInput(
            "this Idempotency-Key was used for another batch", code="idempotency_key_reused", param="Idempotency-Key"
        )
    return BatchObject.from_view(view)


def _is_same(view: BatchView, body: BatchCreate) -> bool:
    batch = view.batch
    return (batch.input_file_id, batch.endpoint, batch.completion_window, batch.attributes) == (
        body.input_file_id,
        body.endpoint,
        body.completion_window,
        body.metadata or {},
    )
