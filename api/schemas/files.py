"""OpenAI's File object."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from hmi.catalog import File

__all__ = ["FileDeleted", "FileObject"]


class FileObject(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: Annotated[int, Field(description="Size.")]
    created_at: Annotated[int, Field(description="Unix seconds.")]
    expires_at: Annotated[int | None, Field(description="Unix seconds; from then on the file is not found.")]
    filename: Annotated[str, Field(description="For display only.")]
    purpose: Annotated[
        str, Field(description="`batch` or `fine-tune` for uploads, `batch_output` or `fine-tune-results` for results.")
    ]
    status: Annotated[Literal["processed"], Field(description="Files are ready as soon as they exist.")] = "processed"
    status_details: str | None = None

    @classmethod
    def from_row(cls, file: File) -> FileObject:
        return cls(
            id=file.id,
            bytes=file.bytes,
            created_at=int(file.created_at),
            expires_at=None if file.expires_at is None else int(file.expires_at),
            filename=file.filename,
            purpose=file.purpose,
        )


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
