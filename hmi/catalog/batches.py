"""Batches as their tenants see them: submit, list, cancel, expire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, case, exists, func, or_, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import Page, execute_dml, insert_or, now, read_page
from hmi.catalog.queue import shards
from hmi.catalog.registry import files, names, tenants
from hmi.catalog.schema import OPEN_JOB, Batch, BatchStatus, File, JobState, Shard, new_id
from hmi.errors import InvalidInput, NotFound, Overloaded


@dataclass(frozen=True, slots=True)
class InputProblem:
    """Why an input file cannot run."""

    code: str
    line: int | None  # 1-based; None for the file as a whole
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch and the sums over its shards.

    `failed` counts lines with an error line, including lines that never ran: `completed + failed` never exceeds
    `batch.total_lines`, and equals it when a batch that ran has ended.
    """

    batch: Batch
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to create."""

    endpoint: str
    completion_window: str
    window_seconds: float
    input_file: File
    total_lines: int
    shards: Sequence[shards.LineRange]  # they cover all lines of the input file once
    attributes: Mapping[str, Any] = field(hash=False)  # the caller's `metadata`
    problems: Sequence[InputProblem] = ()  # why the file cannot run; such a batch is created as failed, without shards


def create_batch(
    session: Session, tenant_id: str, new: NewBatch, *, idempotency_key: str | None, max_queued_lines: int
) -> Batch:
    """Accept a batch. A second call with the tenant's `idempotency_key` returns the first batch, also when two race.

    Raises: `NotFound` (the file was deleted), `Overloaded` if the tenant would have more than `max_queued_lines` open
        lines, `InvalidInput` (a key that was used for another request).
    """
    if not new.problems and sum(shard.lines for shard in new.shards) != new.total_lines:
        raise ValueError(f"the shards do not add up to {new.total_lines} lines")
    names.check_idempotency_key(idempotency_key)
    names.check_json(dict(new.attributes), param="metadata")
    tenants.lock_tenant(session, tenant_id)
    first = find_batch(session, tenant_id, idempotency_key) if idempotency_key is not None else None
    if first is not None:
        if (first.batch.endpoint, first.batch.input_file_id) != (new.endpoint, new.input_file.id):
            raise names.reused_idempotency_key(first.batch.id)
        return first.batch
    # Held until the commit, so that the file cannot be deleted meanwhile.
    of_tenant = (File.tenant_id == tenant_id, File.id == new.input_file.id)
    session.execute(select(File.id).where(*of_tenant).with_for_update(read=True, key_share=True))
    file = files.get_file(session, tenant_id, new.input_file.id)
    if not new.problems:
        _check_quota(session, tenant_id, new.total_lines, max_queued_lines)
    batch_id = new_id("batch_")
    values = {
        "id": batch_id,
        "tenant_id": tenant_id,
        "endpoint": new.endpoint,
        "completion_window": new.completion_window,
        "input_file_id": file.id,
        "input_path": file.path,
        "status": BatchStatus.FAILED if new.problems else BatchStatus.IN_PROGRESS,
        "total_lines": new.total_lines,
        "attributes": dict(new.attributes),
        "errors": [_problem_json(problem) for problem in new.problems],
        "idempotency_key": idempotency_key,
        "created_at": now(),
        "expires_at": now() + new.window_seconds,
        "failed_at" if new.problems else "in_progress_at": now(),
    }
    execute_dml(session, insert_or(session, Batch).values(**values))
    if not new.problems:
        shards.create_shards(session, batch_id, tenant_id, new.shards)
    return session.get_one(Batch, batch_id)


def get_batch(session: Session, tenant_id: str, batch_id: str) -> BatchView:
    """Raises `NotFound`."""
    batch = session.scalars(select(Batch).where(Batch.tenant_id == tenant_id, Batch.id == batch_id)).one_or_none()
    if batch is None:
        raise NotFound(f"there is no batch {batch_id[:80]!r}", code="batch_not_found", param="batch_id")
    return _views(session, [batch])[0]


def find_batch(session: Session, tenant_id: str, idempotency_key: str) -> BatchView | None:
    """Return the batch that the tenant created with this key, if there is one."""
    batch = session.scalars(
        select(Batch).where(Batch.tenant_id == tenant_id, Batch.idempotency_key == idempotency_key)
    ).one_or_none()
    return None if batch is None else _views(session, [batch])[0]


def list_batches(session: Session, tenant_id: str, *, after: str | None = None, limit: int = 20) -> Page[BatchView]:
    """Return a page, newest first. Raises `InvalidInput` for an unknown `after`."""
    page = read_page(session, Batch, select(Batch), tenant_id, after=after, limit=limit, order="desc")
    return Page(_views(session, page.items), page.has_more)


def cancel_batch(session: Session, tenant_id: str, batch_id: str) -> BatchView:
    """Drop the waiting shards; leased ones finish, and their results are kept.

    A second call, or one during finalizing, changes nothing. Raises `NotFound`, `InvalidInput` if the batch has ended.
    """
    mine = (Batch.tenant_id == tenant_id, Batch.id == batch_id)
    cancelled = execute_dml(
        session,
        update(Batch)
        .where(*mine, Batch.status == BatchStatus.IN_PROGRESS)
        .values(status=BatchStatus.CANCELLING, cancelling_at=now()),
    )
    if cancelled:
        shards.drop_waiting(session, Shard.tenant_id == tenant_id, Shard.batch_id == batch_id)
    view = get_batch(session, tenant_id, batch_id)
    if not cancelled and view.batch.status not in (BatchStatus.CANCELLING, BatchStatus.FINALIZING):
        raise InvalidInput(f"batch {batch_id} has ended as {view.batch.status} and cannot be cancelled")
    return view


def expire_batches(session: Session) -> int:
    """Drop the waiting shards of every batch that has expired or is being cancelled; return their number."""
    stopped = and_(Batch.status.in_((BatchStatus.IN_PROGRESS, BatchStatus.CANCELLING)), ~shards.IS_RUNNING)
    return shards.drop_waiting(session, exists().where(Batch.id == Shard.batch_id, stopped))


def _views(session: Session, batches: list[Batch]) -> list[BatchView]:
    counted = case((Shard.state == JobState.DROPPED, Shard.lines), else_=Shard.failed)
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
            or_(Shard.state == JobState.DONE, Shard.state == JobState.DROPPED),
        )
        .group_by(Shard.batch_id)
    )
    found = {batch_id: [int(each) for each in counts] for batch_id, *counts in session.execute(sums)}
    return [BatchView(batch, *found.get(batch.id, [0] * 4)) for batch in batches]


def _check_quota(session: Session, tenant_id: str, lines: int, max_queued_lines: int) -> None:
    waiting = select(func.coalesce(func.sum(Shard.lines), 0))
    queued = int(session.scalars(waiting.where(Shard.tenant_id == tenant_id, Shard.state.in_(OPEN_JOB))).one())
    if queued + lines > max_queued_lines:
        raise Overloaded(
            f"{queued} lines are queued already, and {lines} more would exceed the limit of {max_queued_lines}",
            code="queued_lines_exceeded",
        )


def _problem_json(problem: InputProblem) -> dict[str, Any]:
    # The message may quote the caller's bytes; not every database stores a NUL or half a surrogate pair.
    message = problem.message.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return {"code": problem.code, "line": problem.line, "message": message, "param": problem.param}
