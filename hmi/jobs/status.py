"""The HTTP numbers of errors, and the envelope that OpenAI puts around them.

An error line in a batch's error file carries the same number and the same envelope as the API would have
answered, so both are decided here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hmi.errors import (
    Cancelled,
    Conflict,
    Corrupt,
    Forbidden,
    HmiError,
    InvalidInput,
    NotFound,
    Overloaded,
    StorageFull,
    TooLarge,
    Transient,
    Unauthenticated,
)

__all__ = ["ErrorDetail", "error_detail", "error_type", "http_status"]

# Looked up along the class's bases, so a subclass answers as its parent unless it is named here.
_STATUS: dict[type[HmiError], int] = {
    InvalidInput: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Overloaded: 429,
    StorageFull: 507,
    TooLarge: 507,
    Corrupt: 500,
    Cancelled: 499,
    Transient: 503,
    HmiError: 500,
}

# A finer code may stand for a finer number than its class has.
_STATUS_BY_CODE = {"request_too_large": 413, "unsupported_media_type": 415}


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """The inside of OpenAI's envelope; all four keys are always present."""

    message: str
    type: str
    param: str | None
    code: str

    def envelope(self) -> dict[str, Any]:
        """`{"error": {...}}`."""
        return {"error": asdict(self)}


def http_status(error: HmiError) -> int:
    if error.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[error.code]
    return next(_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS)


def error_type(status: int) -> str:
    """OpenAI's `type` for a status code: who has to act."""
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def error_detail(error: HmiError, status: int | None = None) -> ErrorDetail:
    """`status` is the one answered with; by default the error's own."""
    number = http_status(error) if status is None else status
    # It may quote what the caller sent, and half a surrogate pair cannot be written in an answer.
    message = error.message.encode("utf-8", "backslashreplace").decode()
    return ErrorDetail(message, error_type(number), error.param, error.code)
