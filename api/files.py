"""/v1/files: what batches and fine-tuning jobs read and write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Annotated, Literal
from urllib.parse import quote

from fastapi import Form, Path, Query, UploadFile
from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse

from api.routing import After, Caller, Served, errors, tenant_router
from api.services import Services
from api.uploads import display_name, store
from hmi.catalog import File, NewFile, database_time, files, new_id
from hmi.errors import Corrupt, InvalidInput, NotFound
from hmi.schemas import FileDeleted, FileObject, Page

_CHUNK = 256 * 1024

router = tenant_router("/v1/files", "Files")

FileId = Annotated[str, Path(description="`file-...`", max_length=64)]


@router.post("", summary="Upload a file", responses=errors(413, 429, 507))
def create_file(
    services: Served,
    caller: Caller,
    file: Annotated[UploadFile, "JSON lines: requests, or labelled text, which may be CSV too"],
    purpose: Annotated[Literal["batch", "fine-tune"], Form()],
    anchor: Annotated[Literal["created_at"] | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=3600, le=30 * 24 * 3600)] = None,
) -> FileObject:
    """Upload the input of a batch, or labelled text. Without `expires_after` the file stays until it is deleted.

    The lines are checked when a batch or a fine-tuning job is created from the file.
    """
    if (anchor is None) != (seconds is None):
        raise InvalidInput("expires_after needs both anchor and seconds", param="expires_after")
    file_id = new_id("file-")
    path = f"files/{caller.tenant_id}/{file_id}"
    stored = store(services.storage, path, file.file, services.settings.max_file_bytes)
    try:
        with services.database.session() as session:
            row = files.create_file(
                session,
                caller.tenant_id,
                NewFile(
                    file_id=file_id,
                    purpose=purpose,
                    filename=display_name(file.filename),
                    bytes=stored.bytes,
                    sha256=stored.sha256,
                    path=path,
                    expires_at=None if seconds is None else database_time(session) + seconds,
                ),
            )
    except BaseException:
        services.storage.delete(path)
        raise
    return FileObject.model_validate(row)


@router.get("", summary="List files")
def list_files(
    services: Served,
    caller: Caller,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=32)] = None,
) -> Page[FileObject]:
    """Your files by the time they were created."""
    with services.database.session(read_only=True) as session:
        page = files.list_files(session, caller.tenant_id, after=after, limit=limit, order=order, purpose=purpose)
    return Page[FileObject].of([FileObject.model_validate(row) for row in page.items], has_more=page.has_more)


@router.get("/{file_id}", summary="Look at a file", responses=errors(404))
def retrieve_file(services: Served, caller: Caller, file_id: FileId) -> FileObject:
    """The file's name, size and times; its bytes come from `/content`."""
    with services.database.session(read_only=True) as session:
        return FileObject.model_validate(files.get_file(session, caller.tenant_id, file_id))


@router.delete("/{file_id}", summary="Delete a file", responses=errors(404, 409))
def delete_file(services: Served, caller: Caller, file_id: FileId) -> FileDeleted:
    """The file is gone at once. 409 while a batch or a fine-tuning job that has not ended reads it."""
    with services.database.session() as session:
        row = files.delete_file(session, caller.tenant_id, file_id)
    services.storage.delete(row.path)
    return FileDeleted(id=row.id)


@router.get(
    "/{file_id}/content",
    summary="Download a file",
    response_class=StreamingResponse,
    responses={**errors(404), 200: {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}},
)
def download_file(services: Served, caller: Caller, file_id: FileId) -> StreamingResponse:
    """The file's bytes as they were uploaded or written."""
    with services.database.session(read_only=True) as session:
        row = files.get_file(session, caller.tenant_id, file_id)
    stream = open_content(services, row)
    headers = {
        "content-length": str(row.bytes),
        # RFC 6266: a browser saves the file and never shows it, whatever its name ends with.
        "content-disposition": f"attachment; filename*=UTF-8''{quote(row.filename, safe='')}",
    }
    return StreamingResponse(_chunks(stream), media_type="application/octet-stream", headers=headers)


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def get_file(session: Session, tenant_id: str, file_id: str, param: str, *, purpose: str | None = None) -> File:
    """Raises `NotFound`, and `InvalidInput` for another purpose; `param` is the field that names the file."""
    try:
        file = files.get_file(session, tenant_id, file_id)
    except NotFound as error:
        raise NotFound(error.message, code=error.code, param=param) from None
    if purpose is not None and file.purpose != purpose:
        raise InvalidInput(f"the file's purpose is {file.purpose}, not {purpose}", param=param)
    return file


def open_content(services: Services, file: File) -> IO[bytes]:
    """Raises `Corrupt` where the content is lost."""
    try:
        return services.storage.open(file.path)
    except NotFound as error:
        raise Corrupt(f"the content of file {file.id} is lost") from error
