"""One API over HTTP: requests sent with a key, answers read into types, the API's errors as `hmi.errors`."""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import httpx
from pydantic import ValidationError

from hmi.cli.client.answers import Answer
from hmi.cli.client.failures import error_of, translated
from hmi.errors import HmiError, InvalidInput

__all__ = ["Connection", "files_of", "opened", "quoted"]

_A = TypeVar("_A", bound=Answer)
_R = TypeVar("_R")


class Connection:
    """What `HmiClient` says its sentences through. It is a context manager that closes itself."""

    def __init__(
        self, url: str, key: str | None, *, timeout_seconds: float = 120, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            if transport is None and _is_this_machine(self.url):
                # Past any proxy that the environment names; a failed connect is repeated, a request never.
                transport = httpx.HTTPTransport(retries=2)
            timeout = httpx.Timeout(timeout_seconds, connect=5)
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, transport=transport)
        except httpx.InvalidURL as error:
            raise InvalidInput(f"not an address of an API: {url!r} ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        with translated(self.url):
            response = self._http.request(method, path, **options)
        if response.is_error:
            raise error_of(response)
        return response

    def _one(self, kind: type[_A], method: str, path: str, **options: Any) -> _A:
        return self._read(self._send(method, path, **options), kind.model_validate)

    def _all(self, kind: type[_A], path: str, params: Mapping[str, str] | None = None) -> list[_A]:
        response = self._send("GET", path, params=params)
        return self._read(response, lambda found: [kind.model_validate(each) for each in found["data"]])

    def _read(self, response: httpx.Response, parse: Callable[[Any], _R]) -> _R:
        try:
            return parse(response.json())
        except (ValueError, ValidationError, KeyError, TypeError) as error:
            raise HmiError(
                f"{self.url} answered {response.request.url.path} as HMI does not; is it another server?",
                code="unexpected_answer",
            ) from error


def _is_this_machine(url: str) -> bool:
    host = httpx.URL(url).host
    return host == "localhost" or host.startswith("127.") or host == "::1"


def quoted(name: str) -> str:
    """A name inside a path; the slash of `tenant/model` stays."""
    return urllib.parse.quote(name)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield file


@contextlib.contextmanager
def files_of(folder: Path | None, *, single: str | None = None) -> Iterator[list[tuple[str, tuple[str, BinaryIO]]]]:
    """The files directly in a folder as parts of an upload, and no part for None.

    Args:
        single: What to call a file that is named in the place of a folder; None refuses one.
    """
    if folder is None:
        yield []
        return
    if single is not None and folder.is_file():
        with opened(folder) as file:
            yield [("files", (single, file))]
        return
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise InvalidInput(f"{folder} holds no files")
    with contextlib.ExitStack() as stack:
        yield [("files", (path.name, stack.enter_context(opened(path)))) for path in paths]
