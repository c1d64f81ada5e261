"""A tenant's file and its content, for endpoints that read one."""

from __future__ import annotations

from typing import IO

from sqlalchemy.orm import Session

from api.services import Services
from hmi.catalog import File, files
from hmi.errors import Corrupt, InvalidInput, NotFound


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
