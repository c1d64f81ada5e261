"""The HTTP numbers of errors, and OpenAI's envelope around them, for the API's answers and for batches' error lines."""

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

# A subclass has its parent's number unless it is named here.
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

# Codes with another number than their class.
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
    """OpenAI's `type` for a status code."""
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def error_detail(error: HmiError, status: int | None = None) -> ErrorDetail:
    """Args: status: Of the answer; by default the error's own."""
    number = http_status(error) if status is None else status
    # A message may quote the caller, and half a surrogate pair cannot be written in an answer.
    message = error.message.encode("utf-8", "backslashreplace").decode()
    return ErrorDetail(message, error_type(number), error.param, error.code)
