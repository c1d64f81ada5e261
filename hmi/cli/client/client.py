"""The API over HTTP, with typed answers and the API's errors as `hmi.errors`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from hmi.cli.client import answers, tree_answers, tuning_answers
from hmi.cli.client.connection import Connection, files_of, opened, quoted
from hmi.cli.client.failures import error_of, translated
from hmi.errors import Transient

__all__ = ["HmiClient"]

_BATCH_FILES: Final = "batch"
_ADAPTER_FILE: Final = "adapter.safetensors"
_TUNING: Final = "/v1/fine_tuning/jobs"


class HmiClient(Connection):
    """Calls one API with one key. Every method raises `HmiError`s: the API's own, and `Transient` where it
    cannot be reached.

    Args:
        url: Of the API's root, without `/v1`.
        key: An admin key for management, a tenant's key for its own models, files and batches.
    """

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
        self._send("DELETE", f"/v1/hmi/tenants/{quoted(name)}")

    def create_key(self, tenant: str, *, label: str = "", expires_in_seconds: int | None = None) -> answers.NewKey:
        body: dict[str, Any] = {"label": label}
        if expires_in_seconds is not None:
            body["expires_in_seconds"] = expires_in_seconds
        return self._one(answers.NewKey, "POST", f"/v1/hmi/tenants/{quoted(tenant)}/keys", json=body)

    def keys(self, tenant: str) -> list[answers.ApiKey]:
        return self._all(answers.ApiKey, f"/v1/hmi/tenants/{quoted(tenant)}/keys")

    def revoke_key(self, tenant: str, key_id: str) -> None:
        self._send("DELETE", f"/v1/hmi/tenants/{quoted(tenant)}/keys/{quoted(key_id)}")

    def create_domain(self, name: str, *, parent: str) -> answers.Domain:
        return self._one(answers.Domain, "POST", "/v1/hmi/domains", json={"name": name, "parent": parent})

    def move_domain(self, name: str, *, parent: str) -> answers.Domain:
        return self._one(answers.Domain, "PATCH", f"/v1/hmi/domains/{quoted(name)}", json={"parent": parent})

    def domains(self) -> list[answers.Domain]:
        return self._all(answers.Domain, "/v1/hmi/domains")

    # Base models, tenants' models

    def register_base(self, name: str, folder: Path) -> answers.Base:
        """Upload the files of a base model folder (see `hmi build base`)."""
        with files_of(folder) as files:
            return self._one(answers.Base, "POST", "/v1/hmi/bases", data={"name": name}, files=files)

    def bases(self) -> list[answers.Base]:
        return self._all(answers.Base, "/v1/hmi/bases")

    def set_delta(self, base: str, domain: str, weights: Path) -> answers.Delta:
        """Upload a domain's delta: a file in HMI's own form, or a folder (HMI's or PEFT's)."""
        fields = {"base": base, "domain": domain}
        with files_of(weights, single=_ADAPTER_FILE) as files:
            return self._one(answers.Delta, "POST", "/v1/hmi/deltas", data=fields, files=files)

    def deltas(self, base: str | None = None) -> list[answers.Delta]:
        return self._all(answers.Delta, "/v1/hmi/deltas", {"base": base} if base else None)

    def remove_delta(self, base: str, domain: str) -> answers.Deleted:
        return self._one(answers.Deleted, "DELETE", f"/v1/hmi/deltas/{quoted(base)}/{quoted(domain)}")

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
        with files_of(adapter) as files:
            return self._one(answers.Model, "POST", "/v1/hmi/models", data=fields, files=files)

    def models(self, tenant: str | None = None) -> list[answers.Model]:
        return self._all(answers.Model, "/v1/hmi/models", {"tenant": tenant} if tenant else None)

    def model(self, name: str) -> answers.Model:
        return self._one(answers.Model, "GET", f"/v1/hmi/models/{quoted(name)}")

    def delete_model(self, name: str) -> None:
        self._send("DELETE", f"/v1/hmi/models/{quoted(name)}")

    # Knowledge trees, nodes

    def trees(self, base: str | None = None) -> list[tree_answers.Tree]:
        return self._all(tree_answers.Tree, "/v1/hmi/trees", {"base": base} if base else None)

    def tree(self, base: str) -> tree_answers.Tree:
        return self._one(tree_answers.Tree, "GET", f"/v1/hmi/trees/{quoted(base)}")

    def top_ngrams(
        self, base: str, domain: str, *, limit: int = 20, after: str | None = None
    ) -> tree_answers.NgramPage:
        """The n-grams that a domain is asked for most, at most 1,000 at a time."""
        params = {"domain": domain, "limit": str(limit)} | ({"after": after} if after else {})
        return self._one(tree_answers.NgramPage, "GET", f"/v1/hmi/trees/{quoted(base)}/top", params=params)

    def tree_difference(self, base: str, before: int, after: int, *, limit: int = 10) -> tree_answers.TreeDiff:
        """What version `after` holds otherwise than `before`, with `limit` n-grams of each kind as text."""
        params = {"from": str(before), "to": str(after), "limit": str(limit)}
        return self._one(tree_answers.TreeDiff, "GET", f"/v1/hmi/trees/{quoted(base)}/diff", params=params)

    def roll_back_tree(self, base: str, to: int | None = None) -> tree_answers.Tree:
        return self._one(tree_answers.Tree, "POST", f"/v1/hmi/trees/{quoted(base)}/rollback", json={"to": to})

    def tree_versions(self, base: str) -> list[tree_answers.TreeVersion]:
        return self._all(tree_answers.TreeVersion, f"/v1/hmi/trees/{quoted(base)}/versions")

    def rebuild_tree(self, base: str) -> tree_answers.Rebuild:
        """Request a rebuild; it runs in a worker."""
        return self._one(tree_answers.Rebuild, "POST", f"/v1/hmi/trees/{quoted(base)}/rebuild")

    def count_text(self, base: str, domain: str, texts: Sequence[str]) -> answers.Frequencies:
        """Count the n-grams of at most 100,000 texts as if they had been asked for in `domain`."""
        body = {"base": base, "domain": domain, "texts": list(texts)}
        return self._one(answers.Frequencies, "POST", "/v1/hmi/frequencies", json=body)

    def nodes(self) -> list[answers.Node]:
        return self._all(answers.Node, "/v1/hmi/nodes")

    # Files and batches

    def upload(self, path: Path, purpose: str = _BATCH_FILES) -> answers.File:
        """Upload a batch's input file (JSON lines), or with the purpose `fine-tune` labelled text."""
        with opened(path) as file:
            form = {"data": {"purpose": purpose}, "files": {"file": (path.name, file, "application/jsonl")}}
            return self._one(answers.File, "POST", "/v1/files", **form)

    def create_batch(self, file_id: str, *, endpoint: str, window: str = "24h") -> answers.Batch:
        body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": window}
        # Sent again by a proxy or by hand, this is still one batch.
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._one(answers.Batch, "POST", "/v1/batches", json=body, headers=headers)

    def batch(self, batch_id: str) -> answers.Batch:
        return self._one(answers.Batch, "GET", f"/v1/batches/{quoted(batch_id)}")

    def batches(self, limit: int = 20) -> list[answers.Batch]:
        """The newest ones first."""
        return self._all(answers.Batch, "/v1/batches", {"limit": str(limit)})

    def cancel_batch(self, batch_id: str) -> answers.Batch:
        return self._one(answers.Batch, "POST", f"/v1/batches/{quoted(batch_id)}/cancel")

    # Fine-tuning

    def create_tuning(self, body: Mapping[str, Any]) -> tuning_answers.TuningJob:
        """Args: body: As OpenAI's API has it, with what is HMI's own under `hmi`."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}  # as for a batch
        return self._one(tuning_answers.TuningJob, "POST", _TUNING, json=dict(body), headers=headers)

    def tuning(self, job_id: str) -> tuning_answers.TuningJob:
        return self._one(tuning_answers.TuningJob, "GET", f"{_TUNING}/{quoted(job_id)}")

    def tunings(self, limit: int = 20) -> list[tuning_answers.TuningJob]:
        """The newest ones first."""
        return self._all(tuning_answers.TuningJob, _TUNING, {"limit": str(limit)})

    def tuning_events(self, job_id: str, limit: int = 20) -> list[tuning_answers.TuningEvent]:
        """The newest ones first."""
        return self._all(tuning_answers.TuningEvent, f"{_TUNING}/{quoted(job_id)}/events", {"limit": str(limit)})

    def cancel_tuning(self, job_id: str) -> tuning_answers.TuningJob:
        return self._one(tuning_answers.TuningJob, "POST", f"{_TUNING}/{quoted(job_id)}/cancel")

    def download(self, file_id: str, target: BinaryIO) -> int:
        """Write a file's content to `target` as it arrives, and return its bytes."""
        with (
            translated(self.url),
            self._http.stream("GET", f"/v1/files/{quoted(file_id)}/content") as response,
        ):
            if response.is_error:
                response.read()
                raise error_of(response)
            return sum(target.write(chunk) for chunk in response.iter_bytes())
