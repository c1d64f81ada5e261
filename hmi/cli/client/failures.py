"""Failures of the connection and the API's error answers, as `hmi.errors`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import httpx

import hmi.errors
from hmi.errors import (
    Conflict,
    Forbidden,
    HmiError,
    InvalidInput,
    NotFound,
    Overloaded,
    StorageFull,
    Transient,
    Unauthenticated,
)

_BY_CODE: Final[dict[str, type[HmiError]]] = {
    cls.default_code: cls for name in hmi.errors.__all__ if issubclass(cls := getattr(hmi.errors, name), HmiError)
}
_BY_STATUS: Final[dict[int, type[HmiError]]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: Overloaded,
    502: Transient,
    503: Transient,
    504: Transient,
    507: StorageFull,
}


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise the HTTP client's errors, while it talks to `url`, as `Transient` or `InvalidInput`."""
    try:
        yield
    except httpx.ConnectError as error:
        raise Transient(
            f"nothing answers at {url} ({error}); start it with `hmi up`, or say with --url or HMI_API_URL where it is"
        ) from error
    except httpx.TimeoutException as error:
        raise Transient(f"{url} did not answer in time ({type(error).__name__})") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise InvalidInput(f"not an address of an API: {url!r} ({error})") from error
    except httpx.HTTPError as error:
        raise Transient(f"the connection to {url} was lost: {error}") from error


def error_of(response: httpx.Response) -> HmiError:
    """The error of the API's envelope; its class follows from the code, else from the status."""
    try:
        detail = response.json()["error"]
        message, code, param = str(detail["message"]), detail.get("code"), detail.get("param")
    except (ValueError, KeyError, TypeError):
        reason = f"{response.status_code} {response.reason_phrase}"
        message, code, param = f"{response.request.url} answered {reason}", None, None
    kind = _BY_CODE.get(code or "") or _BY_STATUS.get(response.status_code)
    if kind is None:
        kind = InvalidInput if response.is_client_error else HmiError
    return kind(message, code=code, param=param)
