"""Around every request: its id, one log line, and the error envelope for every failure."""

from __future__ import annotations

import secrets
import time
from urllib.parse import quote

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import error_response
from hmi.errors import HmiError, InvalidInput

_log = structlog.get_logger("api.access")

_PLAIN_IN_PATHS = "/:@!$&'()*+,;=~"  # the rest is quoted: an escape sequence must not reach a terminal


class RequestContext:
    """The outermost middleware except for Starlette's own error page, which is therefore never shown.

    Every answer and its log lines carry `x-request-id`. Paths are logged; query strings, headers and bodies are not.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(16)}"
        answer = _Answer(send, request_id)
        started = time.perf_counter()
        path = quote(scope["path"], safe=_PLAIN_IN_PATHS)
        structlog.contextvars.clear_contextvars()  # the tenant of an earlier request on the same connection
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            refused = _refuse(scope)
            try:
                await (refused or self._app)(scope, receive, answer.send)
            except Exception:  # noqa: BLE001 - answered, and logged with its traceback
                _log.exception("request_failed", method=scope["method"], path=path)
                if not answer.status:
                    failure = HmiError(f"the server failed; quote {request_id} when you report it")
                    await error_response(failure)(scope, receive, answer.send)
            finally:
                _log.info(
                    "request",
                    method=scope["method"],
                    path=path,
                    status=answer.status,
                    milliseconds=round(1000 * (time.perf_counter() - started), 1),
                )


def _refuse(scope: Scope) -> Response | None:
    """The answer to requests that no endpoint accepts."""
    encoding = Headers(scope=scope).get("content-encoding", "identity")
    if encoding != "identity":
        # A compressed body could unfold to any size.
        error = InvalidInput(f"content-encoding {encoding[:40]!r} is not accepted", code="unsupported_media_type")
        return error_response(error)
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        return error_response(InvalidInput("the URL holds a NUL character"))
    return None


class _Answer:
    """Sends an answer with HMI's headers, and keeps its status (0: not begun)."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self._body: bytes | None = None  # replaces the application's
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            if self.status == 413 and headers.get("content-type", "").startswith("text/plain"):
                # The body limit answers in plain text where it is reached before the error handlers.
                envelope = error_response(InvalidInput("the request's body is too large", code="request_too_large"))
                self._body = bytes(envelope.body)
                headers["content-type"] = "application/json"
                headers["content-length"] = str(len(self._body))
            headers["x-request-id"] = self._request_id
            headers["x-content-type-options"] = "nosniff"
        elif message["type"] == "http.response.body" and self._body is not None:
            message = {"type": "http.response.body", "body": self._body, "more_body": False}
            self._body = b""
        await self._send(message)
