"""A tenant's files: the rows; their bytes lie in the storage."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select
from sqlalchemy.orm import Session

from hmi.catalog.database import change, now
from hmi.catalog.names import check_text
from hmi.catalog.pages import Order, Page, read_page
from hmi.catalog.states import OPEN_BATCH
from hmi.catalog.tables import Batch, File
from hmi.catalog.tuning_states import OPEN as OPEN_TUNING
from hmi.catalog.tuning_tables import TuningJob
from hmi.errors import Conflict, NotFound

__all__ = ["create_file", "delete_expired_files", "delete_file", "get_file", "list_files"]


def create_file(
    session: Session,
    tenant_id: str,
    *,
    file_id: str,
    purpose: str,
    filename: str,
    bytes: int,
    sha256: str,
    path: str,
    expires_at: float | None = None,
) -> File:
    """Make stored bytes a tenant's file. Raises `InvalidInput`, `Conflict` where the id is taken."""
    file = File(
        id=file_id,
        tenant_id=tenant_id,
        purpose=purpose,
        filename=check_text(filename, param="filename", max_length=255),
        bytes=bytes,
        sha256=sha256,
        path=path,
        created_at=now(),
        expires_at=expires_at,
    )
    session.add(file)
    session.flush()
    session.refresh(file)
    return file


def get_file(session: Session, tenant_id: str, file_id: str) -> File:
    """Raises `NotFound`, also where the file is another tenant's or has expired."""
    file = session.scalars(
        select(File).where(File.tenant_id == tenant_id, File.id == file_id, _is_kept())
    ).one_or_none()
    if file is None:
        raise _no_file(file_id)
    return file


def list_files(
    session: Session,
    tenant_id: str,
    *,
    after: str | None = None,
    limit: int = 10_000,
    order: Order = "desc",
    purpose: str | None = None,
) -> Page[File]:
    """Raises `InvalidInput` for an unknown `after`."""
    statement = select(File).where(_is_kept())
    if purpose is not None:
        statement = statement.where(File.purpose == purpose)
    return read_page(session, File, statement, tenant_id, after=after, limit=limit, order=order)


def delete_file(session: Session, tenant_id: str, file_id: str) -> File:
    """Forget a file and give what it was; the caller deletes its bytes after the commit.

    Raises `NotFound`; `Conflict` while a batch or a fine-tuning job that has not ended reads it.
    """
    # The lock meets those of create_batch and create_job: a file is either deleted or read by a new one, never both.
    file = session.scalars(
        select(File).where(File.tenant_id == tenant_id, File.id == file_id, _is_kept()).with_for_update()
    ).one_or_none()
    if file is None:
        raise _no_file(file_id)
    unread = delete(File).where(File.tenant_id == tenant_id, File.id == file_id, ~_is_read())
    if not change(session, unread):
        raise Conflict(f"file {file_id} is read by a batch or a fine-tuning job that has not ended", code="file_in_use")
    return file


def delete_expired_files(session: Session, *, limit: int = 100) -> list[File]:
    """Forget files that are past their time and that nothing open reads; the caller deletes their bytes."""
    over = select(File.id).where(File.expires_at <= now(), ~_is_read()).limit(limit)
    ids = list(session.scalars(over.with_for_update(skip_locked=True)))
    unread = delete(File).where(File.id.in_(ids), ~_is_read()).returning(File)
    return list(session.scalars(unread, execution_options={"synchronize_session": False}))


def _is_kept() -> ColumnElement[bool]:
    return or_(File.expires_at.is_(None), File.expires_at > now())


def _is_read() -> ColumnElement[bool]:
    by_batch = exists().where(
        and_(Batch.tenant_id == File.tenant_id, Batch.input_file_id == File.id, Batch.status.in_(OPEN_BATCH))
    )
    by_tuning = exists().where(
        and_(
            TuningJob.tenant_id == File.tenant_id,
            or_(TuningJob.training_file_id == File.id, TuningJob.validation_file_id == File.id),
            TuningJob.state.in_(OPEN_TUNING),
        )
    )
    return or_(by_batch, by_tuning)


def _no_file(file_id: str) -> NotFound:
    return NotFound(f"there is no file {file_id[:80]!r}", code="file_not_found", param="file_id")
