"""A tenant's files: the rows; their bytes are in the storage."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select
from sqlalchemy.orm import Session

from hmi.catalog.database import Order, Page, execute_dml, now, read_page
from hmi.catalog.registry.names import check_text
from hmi.catalog.schema import OPEN_BATCH, OPEN_JOB, Batch, File, TuningJob
from hmi.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file whose bytes are in the storage already."""

    file_id: str
    purpose: str
    filename: str
    bytes: int
    sha256: str
    path: str
    expires_at: float | None = None


def create_file(session: Session, tenant_id: str, new: NewFile) -> File:
    """Raises `InvalidInput`, `Conflict` if the id is taken."""
    check_text(new.filename, param="filename", max_length=255)
    columns = asdict(new)
    file = File(id=columns.pop("file_id"), tenant_id=tenant_id, created_at=now(), **columns)
    session.add(file)
    session.flush()
    session.refresh(file)
    return file


def get_file(session: Session, tenant_id: str, file_id: str) -> File:
    """Raises `NotFound`, also if the file is another tenant's or has expired."""
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
    """Delete a file's row and return it; the caller deletes the bytes after the commit.

    Raises `NotFound`; `Conflict` while an open batch or fine-tuning job reads it.
    """
    # Conflicts with the locks of create_batch and create_job: no new job reads a deleted file.
    mine = (File.tenant_id == tenant_id, File.id == file_id)
    file = session.scalars(select(File).where(*mine, _is_kept()).with_for_update()).one_or_none()
    if file is None:
        raise _no_file(file_id)
    if not execute_dml(session, delete(File).where(*mine, ~_is_read())):
        raise Conflict(f"file {file_id} is read by a batch or a fine-tuning job that has not ended", code="file_in_use")
    return file


def delete_expired_files(session: Session, *, limit: int = 100) -> list[File]:
    """Delete the rows of expired files that no open job reads; the caller deletes their bytes."""
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
            TuningJob.state.in_(OPEN_JOB),
        )
    )
    return or_(by_batch, by_tuning)


def _no_file(file_id: str) -> NotFound:
    return NotFound(f"there is no file {file_id[:80]!r}", code="file_not_found", param="file_id")
