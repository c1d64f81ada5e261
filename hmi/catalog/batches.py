"""Batches: submit, look at, cancel, expire; their end is written in `catalog.finalizing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import and_, case, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import change, insert_or, now
from hmi.catalog.files import get_file
from hmi.catalog.finalizing import NewFile, begin_finalizing, complete, finalizable
from hmi.catalog.lines import LineSpan, NewShard, shard_row
from hmi.catalog.names import check_json, check_text
from hmi.catalog.pages import Page, read_page
from hmi.catalog.states import OPEN_SHARD, WAITING_SHARD, is_running
from hmi.catalog.tables import Batch, BatchStatus, File, Shard, ShardState, Tenant, new_id
from hmi.errors import InvalidInput, NotFound, Overloaded

__all__ = [
    "BatchView",
    "LineSpan",
    "NewFile",
    "NewShard",
    "Problem",
    "begin_finalizing",
    "cancel_batch",
    "complete",
    "create_batch",
    "expire_batches",
    "finalizable",
    "find_batch",
    "get_batch",
    "list_batches",
]

_MAX_IDEMPOTENCY_KEY = 128


class Problem(Protocol):
    """Why an input file cannot be run; `line` is 1-based, None for the file as a whole."""

    @property
    def code(self) -> str: ...
    @property
    def line(self) -> int | None: ...
    @property
    def message(self) -> str: ...
    @property
    def param(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch and what its shards add up to.

    `failed` counts lines with an error line, those that never ran among them: `completed + failed` never
    exceeds `batch.total_lines`, and equals it when a batch that ran has ended.
    """

    batch: Batch
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int


def create_batch(
    session: Session,
    tenant_id: str,
    *,
    endpoint: str,
    completion_window: str,
    window_seconds: float,
    input_file: File,
    total_lines: int,
    shards: Sequence[LineSpan],
    attributes: Mapping[str, Any],
    problems: Sequence[Problem],
    idempotency_key: str | None,
    max_queued_lines: int,
) -> Batch:
    """Accept a batch, or record why its file cannot run (`problems`: status failed, no shards).

    The tenant's equal `idempotency_key` gives the batch that was made first, also when two calls race.

    Raises: `NotFound` (the file, meanwhile), `Overloaded` where the tenant would have more than
        `max_queued_lines` lines waiting, `InvalidInput` (a key that was used for another request).
    """
    if not problems and sum(shard.lines for shard in shards) != total_lines:
        raise ValueError(f"the shards do not add up to {total_lines} lines")
    if idempotency_key is not None:
        check_text(idempotency_key, param="Idempotency-Key", max_length=_MAX_IDEMPOTENCY_KEY)
    check_json(dict(attributes), param="metadata")
    # One submit of a tenant at a time from here: the quota is counted, then used.
    if session.scalars(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True)).first() is None:
        raise NotFound(f"there is no tenant {tenant_id}")
    if idempotency_key is not None:
        first = find_batch(session, tenant_id, idempotency_key)
        if first is not None:
            return _same_request(first.batch, endpoint, input_file.id)
    # Held until the commit: the file cannot be deleted under a batch that reads it.
    session.execute(
        select(File.id)
        .where(File.tenant_id == tenant_id, File.id == input_file.id)
        .with_for_update(read=True, key_share=True)
    )
    file = get_file(session, tenant_id, input_file.id)
    if not problems:
        _check_quota(session, tenant_id, total_lines, max_queued_lines)
    batch_id = new_id("batch_")
    values = {
        "id": batch_id,
        "tenant_id": tenant_id,
        "endpoint": endpoint,
        "completion_window": completion_window,
        "input_file_id": file.id,
        "input_path": file.path,
        "status": BatchStatus.FAILED if problems else BatchStatus.IN_PROGRESS,
        "total_lines": total_lines,
        "attributes": dict(attributes),
        "errors": [_problem_json(problem) for problem in problems],
        "idempotency_key": idempotency_key,
        "created_at": now(),
        "expires_at": now() + window_seconds,
        "failed_at" if problems else "in_progress_at": now(),
    }
    change(session, insert_or(session, Batch).values(**values))
    if not problems:
        session.execute(insert(Shard), [shard_row(batch_id, tenant_id, shard) for shard in shards])
    return session.get_one(Batch, batch_id)


def get_batch(session: Session, tenant_id: str, batch_id: str) -> BatchView:
    """Raises `NotFound`."""
    batch = session.scalars(
        select(Batch)
        .where(Batch.tenant_id == tenant_id, Batch.id == batch_id)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if batch is None:
        raise NotFound(f"there is no batch {batch_id[:80]!r}", code="batch_not_found", param="batch_id")
    return _views(session, [batch])[0]


def find_batch(session: Session, tenant_id: str, idempotency_key: str) -> BatchView | None:
    """The batch that the tenant made with this key, if there is one."""
    batch = session.scalars(
        select(Batch).where(Batch.tenant_id == tenant_id, Batch.idempotency_key == idempotency_key)
    ).one_or_none()
    return None if batch is None else _views(session, [batch])[0]


def list_batches(session: Session, tenant_id: str, *, after: str | None = None, limit: int = 20) -> Page[BatchView]:
    """Newest first. Raises `InvalidInput` for an unknown `after`."""
    page = read_page(session, Batch, select(Batch), tenant_id, after=after, limit=limit, order="desc")
    return Page(_views(session, page.items), page.has_more)


def cancel_batch(session: Session, tenant_id: str, batch_id: str) -> BatchView:
    """Drop the shards that wait; those that run are finished and their answers kept.

    Again, or while the result is being assembled, it is no change. Raises `NotFound`, `InvalidInput` where
    the batch has ended.
    """
    mine = (Batch.tenant_id == tenant_id, Batch.id == batch_id)
    cancelled = change(
        session,
        update(Batch)
        .where(*mine, Batch.status == BatchStatus.IN_PROGRESS)
        .values(status=BatchStatus.CANCELLING, cancelling_at=now()),
    )
    if cancelled:
        drop = update(Shard).where(
            Shard.tenant_id == tenant_id, Shard.batch_id == batch_id, Shard.state.in_(WAITING_SHARD)
        )
        change(session, drop.values(state=ShardState.DROPPED, finished_at=now()))
    view = get_batch(session, tenant_id, batch_id)
    if not cancelled and view.batch.status not in (BatchStatus.CANCELLING, BatchStatus.FINALIZING):
        raise InvalidInput(f"batch {batch_id} has ended as {view.batch.status} and cannot be cancelled")
    return view


def expire_batches(session: Session) -> int:
    """Drop the waiting shards of every batch that does not run any more; gives their number.

    Finds batches whose window is over, and what came back to waiting just while its batch was cancelled.
    """
    stopped = and_(Batch.status.in_((BatchStatus.IN_PROGRESS, BatchStatus.CANCELLING)), ~is_running())
    return change(
        session,
        update(Shard)
        .where(Shard.state.in_(WAITING_SHARD), exists().where(Batch.id == Shard.batch_id, stopped))
        .values(state=ShardState.DROPPED, finished_at=now()),
    )


def _views(session: Session, batches: list[Batch]) -> list[BatchView]:
    counted = case((Shard.state == ShardState.DROPPED, Shard.lines), else_=Shard.failed)
    sums = (
        select(
            Shard.batch_id,
            func.sum(Shard.completed),
            func.sum(counted),
            func.sum(Shard.input_tokens),
            func.sum(Shard.output_tokens),
        )
        .where(
            Shard.batch_id.in_([batch.id for batch in batches]),
            or_(Shard.state == ShardState.DONE, Shard.state == ShardState.DROPPED),
        )
        .group_by(Shard.batch_id)
    )
    found = {batch_id: [int(each) for each in counts] for batch_id, *counts in session.execute(sums)}
    return [BatchView(batch, *found.get(batch.id, [0] * 4)) for batch in batches]


def _check_quota(session: Session, tenant_id: str, lines: int, max_queued_lines: int) -> None:
    waiting = select(func.coalesce(func.sum(Shard.lines), 0))
    queued = int(session.scalars(waiting.where(Shard.tenant_id == tenant_id, Shard.state.in_(OPEN_SHARD))).one())
    if queued + lines > max_queued_lines:
        raise Overloaded(
            f"{queued} lines wait already, and {lines} more would exceed the limit of {max_queued_lines}",
            code="queued_lines_exceeded",
        )


def _same_request(batch: Batch, endpoint: str, input_file_id: str) -> Batch:
    if (batch.endpoint, batch.input_file_id) != (endpoint, input_file_id):
        raise InvalidInput(
            f"this Idempotency-Key belongs to {batch.id}, which is another request",
            code="idempotency_key_reused",
            param="Idempotency-Key",
        )
    return batch


def _problem_json(problem: Problem) -> dict[str, Any]:
    # The message may quote the caller's bytes; a NUL or half a surrogate pair cannot be stored everywhere.
    message = problem.message.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return {"code": problem.code, "line": problem.line, "message": message, "param": problem.param}
