"""Every failure as OpenAI's envelope `{"error": {message, type, param, code}}`.

The numbers come from `hmi.jobs.status`, which error lines of batches share.
"""

from __future__ import annotations

import errno
from typing import cast

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from hmi.errors import Conflict, HmiError, InvalidInput, NotFound, Overloaded, StorageFull, Transient
from hmi.jobs import ErrorDetail, error_detail, error_type, http_status
from hmi.schemas import invalid_input

_log = structlog.get_logger(__name__)

_RETRY_AFTER_SECONDS = {429: "5", 503: "2"}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def error_response(error: HmiError) -> JSONResponse:
    """The answer to an `HmiError`."""
    status = http_status(error)
    detail = error_detail(error)
    if isinstance(error, Transient) and error.code == Transient.default_code:
        # The message names hosts and drivers, which belong into the log only.
        message = "a required service does not answer at the moment; try again shortly"
        detail = ErrorDetail(message, detail.type, detail.param, detail.code)
    return JSONResponse(detail.envelope(), status_code=status, headers=_retry_headers(error, status))


def _retry_headers(error: HmiError, status: int) -> dict[str, str]:
    """OpenAI's clients repeat 409, 429 and everything from 500 on unless `x-should-retry` is false."""
    headers = {}
    if isinstance(error, Conflict) or status >= 500:
        again = error.retryable and not isinstance(error, StorageFull)
        headers["x-should-retry"] = "true" if again else "false"
    if isinstance(error, Overloaded | Transient) and status in _RETRY_AFTER_SECONDS:
        headers["retry-after"] = _RETRY_AFTER_SECONDS[status]
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(HmiError, _on_hmi_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    # Starlette's class, not FastAPI's: the router's own 404 and 405 are of this one.
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_hmi_error(request: Request, error: Exception) -> JSONResponse:
    known = cast(HmiError, error)
    response = error_response(known)
    if response.status_code >= 500:
        _log.error("request_error", code=known.code, error=known.message, exc_info=error)
    return response


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    first = cast(RequestValidationError, error).errors()[0]
    # The location begins with `body`, `query`, `path` or `header`, which is no part of a field's name.
    return error_response(invalid_input(first, "the body", first["loc"][1:]))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    known = cast(HTTPException, error)
    if _is_full_disk(known.__cause__):
        return error_response(StorageFull("no room left on the server for the request's body"))
    status = known.status_code
    if status == 404:
        return error_response(NotFound(f"there is no endpoint at {request.url.path}", code="unknown_url"))
    if status == 413:
        return error_response(InvalidInput("the request's body is too large", code="request_too_large"))
    code = "method_not_allowed" if status == 405 else "invalid_request"
    message = f"{request.method} is not allowed here" if status == 405 else str(known.detail)
    detail = ErrorDetail(message, error_type(status), None, code)
    return JSONResponse(detail.envelope(), status_code=status, headers=known.headers)


def _is_full_disk(cause: BaseException | None) -> bool:
    """Whether writing the body to a temporary file failed for lack of room; FastAPI answers 400 to that."""
    return isinstance(cause, OSError) and cause.errno in _FULL
