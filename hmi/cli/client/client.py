"""The API over HTTP: answers as `hmi.schemas`, the API's errors as `hmi.errors`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from hmi.cli.client.failures import error_of, translated
from hmi.cli.client.uploads import opened, parts_of
from hmi.errors import HmiError, InvalidInput, Transient
from hmi.schemas import (
    BaseObject,
    BatchObject,
    Deleted,
    DeltaObject,
    DomainObject,
    EventObject,
    FileObject,
    FrequenciesCounted,
    FrequenciesPublished,
    JobObject,
    KeyObject,
    NewKeyObject,
    NgramPage,
    NodeObject,
    Readiness,
    RebuildRequested,
    ResponseModel,
    TenantDeleted,
    TenantModelObject,
    TenantObject,
    TreeDiffObject,
    TreeObject,
    TreeVersionObject,
)
from hmi.spec import CountPolicy

_BATCH_FILES: Final = "batch"
_ADAPTER_FILE: Final = "adapter.safetensors"
_TUNING: Final = "/v1/fine_tuning/jobs"

_R = TypeVar("_R", bound=ResponseModel)
_T = TypeVar("_T")


class HmiClient:
    """Calls one API with one key. It is a context manager that closes itself.

    Every method raises `HmiError`s: the API's own, and `Transient` where it cannot be reached.

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
                # No proxy of the environment is used; a failed connect is repeated, a request never.
                transport = httpx.HTTPTransport(retries=2)
            timeout = httpx.Timeout(timeout_seconds, connect=5)
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, transport=transport)
        except httpx.InvalidURL as error:
            raise InvalidInput(f"not an address of an API: {url!r} ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def check_ready(self) -> None:
        """Raises `Transient` naming the checks that fail."""
        with translated(self.url):
            response = self._http.get("/readyz")
        found = self._read(response, Readiness.model_validate)
        if missing := ", ".join(f"{name}: {state}" for name, state in found.checks.items() if state != "ok"):
            raise Transient(f"{self.url} is not ready ({missing})")
        if response.is_error:
            raise error_of(response)

    # Tenants, their keys, domains

    def create_tenant(self, name: str, *, weight: int = 1, counts: CountPolicy | None = None) -> TenantObject:
        body = {"name": name, "weight": weight, "counts": counts}
        return self._one(TenantObject, "POST", "/v1/hmi/tenants", json=body)

    def change_tenant(self, name: str | None, **changes: Any) -> TenantObject:
        """Change `weight` or `counts`; without a name, `counts` of the key's own tenant."""
        path = "/v1/hmi/tenant" if name is None else f"/v1/hmi/tenants/{quote(name)}"
        return self._one(TenantObject, "PATCH", path, json=changes)

    def tenants(self) -> list[TenantObject]:
        return self._all(TenantObject, "/v1/hmi/tenants")

    def delete_tenant(self, name: str, *, purge: bool = False) -> TenantDeleted:
        params = {"purge": "true"} if purge else None
        return self._one(TenantDeleted, "DELETE", f"/v1/hmi/tenants/{quote(name)}", params=params)

    def create_key(self, tenant: str, *, label: str = "", expires_in_seconds: int | None = None) -> NewKeyObject:
        body: dict[str, Any] = {"label": label}
        if expires_in_seconds is not None:
            body["expires_in_seconds"] = expires_in_seconds
        return self._one(NewKeyObject, "POST", f"/v1/hmi/tenants/{quote(tenant)}/keys", json=body)

    def keys(self, tenant: str) -> list[KeyObject]:
        return self._all(KeyObject, f"/v1/hmi/tenants/{quote(tenant)}/keys")

    def revoke_key(self, tenant: str, key_id: str) -> None:
        self._send("DELETE", f"/v1/hmi/tenants/{quote(tenant)}/keys/{quote(key_id)}")

    def create_domain(
        self,
        name: str,
        *,
        parent: str,
        owner: str | None = None,
        audience: str | None = None,
        tenants: Sequence[str] = (),
    ) -> DomainObject:
        body = {"name": name, "parent": parent, "owner": owner, "audience": audience, "tenants": list(tenants)}
        return self._one(DomainObject, "POST", "/v1/hmi/domains", json=body)

    def move_domain(self, name: str, *, parent: str) -> DomainObject:
        return self._one(DomainObject, "PATCH", f"/v1/hmi/domains/{quote(name)}", json={"parent": parent})

    def set_audience(self, name: str, audience: str, tenants: Sequence[str] = ()) -> DomainObject:
        body = {"audience": audience, "tenants": list(tenants)}
        return self._one(DomainObject, "PUT", f"/v1/hmi/domains/{quote(name)}/audience", json=body)

    def allow_tenant(self, domain: str, tenant: str) -> DomainObject:
        return self._one(DomainObject, "PUT", f"/v1/hmi/domains/{quote(domain)}/tenants/{quote(tenant)}")

    def deny_tenant(self, domain: str, tenant: str) -> DomainObject:
        return self._one(DomainObject, "DELETE", f"/v1/hmi/domains/{quote(domain)}/tenants/{quote(tenant)}")

    def domain(self, name: str) -> DomainObject:
        return self._one(DomainObject, "GET", f"/v1/hmi/domains/{quote(name)}")

    def domains(self) -> list[DomainObject]:
        return self._all(DomainObject, "/v1/hmi/domains")

    # Base models, tenants' models

    def register_base(self, name: str, folder: Path) -> BaseObject:
        """Upload the files of a base model folder (see `hmi build base`)."""
        with parts_of(folder) as files:
            return self._one(BaseObject, "POST", "/v1/hmi/bases", data={"name": name}, files=files)

    def bases(self) -> list[BaseObject]:
        return self._all(BaseObject, "/v1/hmi/bases")

    def set_delta(self, base: str, domain: str, weights: Path, *, owner: str | None = None) -> DeltaObject:
        """Upload a domain's delta: a file in HMI's own form, or a folder (HMI's or PEFT's)."""
        fields = {"base": base, "domain": domain} | ({"owner": owner} if owner else {})
        with parts_of(weights, single=_ADAPTER_FILE) as files:
            return self._one(DeltaObject, "POST", "/v1/hmi/deltas", data=fields, files=files)

    def deltas(self, base: str | None = None) -> list[DeltaObject]:
        return self._all(DeltaObject, "/v1/hmi/deltas", {"base": base} if base else None)

    def publish_delta(self, base: str, domain: str) -> DeltaObject:
        return self._one(DeltaObject, "POST", f"/v1/hmi/deltas/{quote(base)}/{quote(domain)}/publish")

    def remove_delta(self, base: str, domain: str) -> Deleted:
        return self._one(Deleted, "DELETE", f"/v1/hmi/deltas/{quote(base)}/{quote(domain)}")

    def register_model(
        self,
        name: str,
        *,
        base: str,
        domain: str,
        adapter: Path | None = None,
        miss_policy: str = "exact",
        labels: Sequence[str] | None = None,
    ) -> TenantModelObject:
        """Upload an adapter folder (HMI's, PEFT's or AdapterHub's) as the tenant's model `name`; without
        one the model is the base alone. An existing name gets a new revision.
        """
        fields = {"name": name, "base": base, "domain": domain, "miss_policy": miss_policy}
        if labels is not None:
            fields["labels"] = json.dumps(list(labels))
        with parts_of(adapter) as files:
            return self._one(TenantModelObject, "POST", "/v1/hmi/models", data=fields, files=files)

    def models(self, tenant: str | None = None) -> list[TenantModelObject]:
        return self._all(TenantModelObject, "/v1/hmi/models", {"tenant": tenant} if tenant else None)

    def model(self, name: str) -> TenantModelObject:
        return self._one(TenantModelObject, "GET", f"/v1/hmi/models/{quote(name)}")

    def delete_model(self, name: str) -> None:
        self._send("DELETE", f"/v1/hmi/models/{quote(name)}")

    # Knowledge trees, nodes

    def trees(self, base: str | None = None) -> list[TreeObject]:
        return self._all(TreeObject, "/v1/hmi/trees", {"base": base} if base else None)

    def tree(self, base: str) -> TreeObject:
        return self._one(TreeObject, "GET", f"/v1/hmi/trees/{quote(base)}")

    def top_ngrams(self, base: str, domain: str, *, limit: int = 20, after: str | None = None) -> NgramPage:
        """A domain's most frequent n-grams, at most 1,000 at a time."""
        params = {"domain": domain, "limit": str(limit)} | ({"after": after} if after else {})
        return self._one(NgramPage, "GET", f"/v1/hmi/trees/{quote(base)}/top", params=params)

    def tree_difference(self, base: str, before: int, after: int, *, limit: int = 10) -> TreeDiffObject:
        """Compare two versions, with `limit` n-grams of each kind as text."""
        params = {"from": str(before), "to": str(after), "limit": str(limit)}
        return self._one(TreeDiffObject, "GET", f"/v1/hmi/trees/{quote(base)}/diff", params=params)

    def roll_back_tree(self, base: str, to: int | None = None) -> TreeObject:
        return self._one(TreeObject, "POST", f"/v1/hmi/trees/{quote(base)}/rollback", json={"to": to})

    def tree_versions(self, base: str) -> list[TreeVersionObject]:
        return self._all(TreeVersionObject, f"/v1/hmi/trees/{quote(base)}/versions")

    def rebuild_tree(self, base: str) -> RebuildRequested:
        """Request a rebuild; it runs in a worker."""
        return self._one(RebuildRequested, "POST", f"/v1/hmi/trees/{quote(base)}/rebuild")

    def declare_public(self, base: str, domain: str) -> FrequenciesPublished:
        body = {"base": base, "domain": domain}
        return self._one(FrequenciesPublished, "POST", "/v1/hmi/frequencies/public", json=body)

    def count_text(self, base: str, domain: str, texts: Sequence[str]) -> FrequenciesCounted:
        """Count the n-grams of at most 100,000 texts as lookups of `domain`."""
        body = {"base": base, "domain": domain, "texts": list(texts)}
        return self._one(FrequenciesCounted, "POST", "/v1/hmi/frequencies", json=body)

    def nodes(self) -> list[NodeObject]:
        return self._all(NodeObject, "/v1/hmi/nodes")

    # Files and batches

    def upload(self, path: Path, purpose: str = _BATCH_FILES) -> FileObject:
        """Upload a batch's input file (JSON lines), or with the purpose `fine-tune` labelled text."""
        with opened(path) as file:
            form = {"data": {"purpose": purpose}, "files": {"file": (path.name, file, "application/jsonl")}}
            return self._one(FileObject, "POST", "/v1/files", **form)

    def create_batch(self, file_id: str, *, endpoint: str, window: str = "24h") -> BatchObject:
        body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": window}
        # A proxy that repeats the request starts no second batch.
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._one(BatchObject, "POST", "/v1/batches", json=body, headers=headers)

    def batch(self, batch_id: str) -> BatchObject:
        return self._one(BatchObject, "GET", f"/v1/batches/{quote(batch_id)}")

    def batches(self, limit: int = 20) -> list[BatchObject]:
        """The newest ones first."""
        return self._all(BatchObject, "/v1/batches", {"limit": str(limit)})

    def cancel_batch(self, batch_id: str) -> BatchObject:
        return self._one(BatchObject, "POST", f"/v1/batches/{quote(batch_id)}/cancel")

    # Fine-tuning

    def create_tuning(self, body: Mapping[str, Any]) -> JobObject:
        """Args: body: OpenAI's, with HMI's own options under `hmi`."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}  # as for a batch
        return self._one(JobObject, "POST", _TUNING, json=dict(body), headers=headers)

    def tuning(self, job_id: str) -> JobObject:
        return self._one(JobObject, "GET", f"{_TUNING}/{quote(job_id)}")

    def tunings(self, limit: int = 20) -> list[JobObject]:
        """The newest ones first."""
        return self._all(JobObject, _TUNING, {"limit": str(limit)})

    def tuning_events(self, job_id: str, limit: int = 20) -> list[EventObject]:
        """The newest ones first."""
        return self._all(EventObject, f"{_TUNING}/{quote(job_id)}/events", {"limit": str(limit)})

    def cancel_tuning(self, job_id: str) -> JobObject:
        return self._one(JobObject, "POST", f"{_TUNING}/{quote(job_id)}/cancel")

    def download(self, file_id: str, target: BinaryIO) -> int:
        """Write a file's content to `target` as it arrives, and return its bytes."""
        with translated(self.url), self._http.stream("GET", f"/v1/files/{quote(file_id)}/content") as response:
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

    def _one(self, kind: type[_R], method: str, path: str, **options: Any) -> _R:
        return self._read(self._send(method, path, **options), kind.model_validate)

    def _all(self, kind: type[_R], path: str, params: Mapping[str, str] | None = None) -> list[_R]:
        response = self._send("GET", path, params=params)
        return self._read(response, lambda found: [kind.model_validate(each) for each in found["data"]])

    def _read(self, response: httpx.Response, parse: Callable[[Any], _T]) -> _T:
        try:
            return parse(response.json())
        except (ValueError, ValidationError, KeyError, TypeError) as error:
            raise HmiError(
                f"{self.url} answered {response.request.url.path} as HMI does not; is it another server, or another "
                "version of HMI?",
                code="unexpected_answer",
            ) from error


def _is_this_machine(url: str) -> bool:
    host = httpx.URL(url).host
    return host == "localhost" or host.startswith("127.") or host == "::1"
