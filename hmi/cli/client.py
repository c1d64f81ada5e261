"""The API over HTTP, with typed answers and the API's errors as `hmi.errors`."""

from __future__ import annotations

import contextlib
import json
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, TypeVar

import httpx
from pydantic import ValidationError

from hmi.cli import answers
from hmi.cli.failures import error_of, translated
from hmi.errors import HmiError, InvalidInput, Transient

__all__ = ["HmiClient"]

_A = TypeVar("_A", bound=answers.Answer)
_R = TypeVar("_R")
_BATCH_FILES: Final = "batch"


class HmiClient:
    """Calls one API with one key. Every method raises `HmiError`s: the API's own, and `Transient` where it
    cannot be reached.

    Args:
        url: Of the API's root, without `/v1`.
        key: An admin key for management, a tenant's key for its own models, files and batches.
    """

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

    def check_ready(self) -> None:
        """Raises `Transient` saying what the API still waits for."""
        with translated(self.url):
            response = self._http.get("/readyz")
        found = self._read(response, answers.Readiness.model_validate)
        if missing := ", ".join(f"{name}: {state}" for name, state in found.checks.items() if state != "ok"):
            raise Transient(f"{self.url} is not ready ({missing})")
        if response.is_error:
            raise error_of(response)

    # Tenants, their keys, domains

    def create_tenant(self, name: str, *, weight: int = 1) -> answers.Tenant:
        return self._one(answers.Tenant, "POST", "/v1/hmi/tenants", json={"name": name, "weight": weight})

    def tenants(self) -> list[answers.Tenant]:
        return self._all(answers.Tenant, "/v1/hmi/tenants")

    def delete_tenant(self, name: str) -> None:
        self._send("DELETE", f"/v1/hmi/tenants/{_quoted(name)}")

    def create_key(self, tenant: str, *, label: str = "", expires_in_seconds: int | None = None) -> answers.NewKey:
        body: dict[str, Any] = {"label": label}
        if expires_in_seconds is not None:
            body["expires_in_seconds"] = expires_in_seconds
        return self._one(answers.NewKey, "POST", f"/v1/hmi/tenants/{_quoted(tenant)}/keys", json=body)

    def keys(self, tenant: str) -> list[answers.ApiKey]:
        return self._all(answers.ApiKey, f"/v1/hmi/tenants/{_quoted(tenant)}/keys")

    def revoke_key(self, tenant: str, key_id: str) -> None:
        self._send("DELETE", f"/v1/hmi/tenants/{_quoted(tenant)}/keys/{_quoted(key_id)}")

    def create_domain(self, name: str, *, parent: str) -> answers.Domain:
        return self._one(answers.Domain, "POST", "/v1/hmi/domains", json={"name": name, "parent": parent})

    def domains(self) -> list[answers.Domain]:
        return self._all(answers.Domain, "/v1/hmi/domains")

    # Base models, tenants' models

    def register_base(self, name: str, folder: Path) -> answers.Base:
        """Upload the files of a base model folder (see `hmi base build`)."""
        with _files_of(folder) as files:
            return self._one(answers.Base, "POST", "/v1/hmi/bases", data={"name": name}, files=files)

    def bases(self) -> list[answers.Base]:
        return self._all(answers.Base, "/v1/hmi/bases")

    def register_model(
        self,
        name: str,
        *,
        base: str,
        domain: str,
        adapter: Path | None = None,
        miss_policy: str = "exact",
        labels: Sequence[str] | None = None,
    ) -> answers.Model:
        """Upload an adapter folder (HMI's, PEFT's or AdapterHub's) as the tenant's model `name`; without
        one the model is the base alone. An existing name gets a new revision.
        """
        fields = {"name": name, "base": base, "domain": domain, "miss_policy": miss_policy}
        if labels is not None:
            fields["labels"] = json.dumps(list(labels))
        with _files_of(adapter) as files:
            return self._one(answers.Model, "POST", "/v1/hmi/models", data=fields, files=files)

    def models(self, tenant: str | None = None) -> list[answers.Model]:
        return self._all(answers.Model, "/v1/hmi/models", {"tenant": tenant} if tenant else None)

    def model(self, name: str) -> answers.Model:
        return self._one(answers.Model, "GET", f"/v1/hmi/models/{_quoted(name)}")

    def delete_model(self, name: str) -> None:
        self._send("DELETE", f"/v1/hmi/models/{_quoted(name)}")

    # Knowledge trees, nodes

    def trees(self, base: str | None = None) -> list[answers.Tree]:
        return self._all(answers.Tree, "/v1/hmi/trees", {"base": base} if base else None)

    def tree_versions(self, base: str) -> list[answers.TreeVersion]:
        return self._all(answers.TreeVersion, f"/v1/hmi/trees/{_quoted(base)}/versions")

    def rebuild_tree(self, base: str) -> answers.Rebuild:
        """Ask for a rebuild; it runs in a worker."""
        return self._one(answers.Rebuild, "POST", f"/v1/hmi/trees/{_quoted(base)}/rebuild")

    def count_text(self, base: str, domain: str, texts: Sequence[str]) -> answers.Frequencies:
        """Count the n-grams of at most 100,000 texts as if they had been asked for in `domain`."""
        body = {"base": base, "domain": domain, "texts": list(texts)}
        return self._one(answers.Frequencies, "POST", "/v1/hmi/frequencies", json=body)

    def nodes(self) -> list[answers.Node]:
        return self._all(answers.Node, "/v1/hmi/nodes")

    # Files and batches

    def upload(self, path: Path) -> answers.File:
        """Upload a batch's input file (JSON lines)."""
        with _opened(path) as file:
            form = {"data": {"purpose": _BATCH_FILES}, "files": {"file": (path.name, file, "application/jsonl")}}
            return self._one(answers.File, "POST", "/v1/files", **form)

    def create_batch(self, file_id: str, *, endpoint: str, window: str = "24h") -> answers.Batch:
        body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": window}
        # Sent again by a proxy or by hand, this is still one batch.
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._one(answers.Batch, "POST", "/v1/batches", json=body, headers=headers)

    def batch(self, batch_id: str) -> answers.Batch:
        return self._one(answers.Batch, "GET", f"/v1/batches/{_quoted(batch_id)}")

    def batches(self, limit: int = 20) -> list[answers.Batch]:
        """The newest ones first."""
        return self._all(answers.Batch, "/v1/batches", {"limit": str(limit)})

    def cancel_batch(self, batch_id: str) -> answers.Batch:
        return self._one(answers.Batch, "POST", f"/v1/batches/{_quoted(batch_id)}/cancel")

    def download(self, file_id: str, target: BinaryIO) -> int:
        """Write a file's content to `target` as it arrives, and return its bytes."""
        with (
            translated(self.url),
            self._http.stream("GET", f"/v1/files/{_quoted(file_id)}/content") as response,
        ):
            if response.is_error:
                response.read()
                raise error_of(response)
            return sum(target.write(chunk) for chunk in response.iter_bytes())

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


def _quoted(name: str) -> str:
    """A name inside a path; the slash of `tenant/model` stays."""
    return urllib.parse.quote(name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield file


@contextlib.contextmanager
def _files_of(folder: Path | None) -> Iterator[list[tuple[str, tuple[str, BinaryIO]]]]:
    """The files directly in a folder as parts of an upload, and no part for None."""
    if folder is None:
        yield []
        return
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise InvalidInput(f"{folder} holds no files")
    with contextlib.ExitStack() as opened:
        yield [("files", (path.name, opened.enter_context(_opened(path)))) for path in paths]
