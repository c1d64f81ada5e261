"""A small HMI for tests: catalog, storage, tenants, models, batches, and the audit of results."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import update

from hmi.artifacts import ArtifactStore
from hmi.catalog import (
    BatchStatus,
    Database,
    JobMessage,
    NewBatch,
    NewFile,
    Shard,
    Tenant,
    bases,
    batches,
    domains,
    execute_dml,
    files,
    models,
    new_id,
    shards,
    tenants,
)
from hmi.jobs import check_input
from hmi.schemas import Limits
from hmi.settings import Settings
from hmi.spec import Family, HPLMSpec, MissPolicy
from hmi.storage import Storage

__all__ = ["Results", "Worksite", "line", "small_spec"]

ENDED = {BatchStatus.COMPLETED, BatchStatus.CANCELLED, BatchStatus.EXPIRED, BatchStatus.FAILED}


def small_spec(k: int = 2) -> HPLMSpec:
    """Return the spec of `StubEngine`'s default rows."""
    return HPLMSpec(
        family=Family.BERT,
        vocab_size=50,
        hidden_size=8,
        layers=4,
        heads=2,
        intermediate_size=16,
        max_positions=48,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        activation="gelu",
        pad_token_id=0,
        k=k,
    )


def line(
    custom_id: str, model: str, text: object = "some text", *, url: str = "/v1/classify", **body: Any
) -> dict[str, Any]:
    """Return one line of an input file; `text` may be of a wrong type."""
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": url,
        "body": {"model": model, "input": text, **body},
    }


@dataclass(frozen=True, slots=True)
class Results:
    """A batch's status, and its answers and errors by custom_id."""

    status: BatchStatus
    answers: Mapping[str, dict[str, Any]]
    errors: Mapping[str, dict[str, Any]]

    def error_code(self, custom_id: str) -> str:
        entry = self.errors[custom_id]
        detail = entry["error"] or entry["response"]["body"]["error"]
        return str(detail["code"])


class Worksite:
    """Everything that processes share, on the catalog at `database_url`."""

    def __init__(self, root: Path, database_url: str, redis_url: str, **settings: Any) -> None:
        self.root = root
        self.settings = Settings.model_validate(
            {
                "data_dir": root,
                "database_url": database_url,
                "broker_url": SecretStr(redis_url),
                "storage_url": f"file://{root / 'storage'}",
                "device": "cpu",
                "dtype": "float32",
                "threads": 1,
                "host_adapter_bytes": 64 * 1024**2,
                "device_adapter_bytes": 8 * 1024**2,
                "shard_lines": 4,
                **settings,
            }
        )
        self.database = Database(database_url)
        self.storage = Storage(self.settings.resolved_storage_url)
        self.artifacts = ArtifactStore(self.storage, self.settings.resolved_cache_dir)

    def environment(self) -> dict[str, str]:
        """Return the settings as environment variables."""
        values = {}
        for name in self.settings.model_fields_set:
            value = getattr(self.settings, name)
            values[f"HMI_{name.upper()}"] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        return values

    def add_base(self, name: str = "base", spec: HPLMSpec | None = None, folder: Path | None = None) -> str:
        """Register a base model; without `folder`, one that only `StubEngine` accepts."""
        spec = spec or small_spec()
        if folder is None:
            artifact = self.artifacts.put({"spec.json": io.BytesIO(spec.to_json().encode())})
        else:
            artifact = self.artifacts.put_folder(folder)
        with self.database.session() as session:
            bases.register_base(session, name, artifact, spec)
        return artifact

    def add_domain(self, name: str, parent: str = "general") -> None:
        with self.database.session() as session:
            domains.create_domain(session, name, parent)

    def add_tenant(self, name: str, *, weight: int = 1) -> str:
        with self.database.session() as session:
            return tenants.create_tenant(session, name, weight=weight).id

    def add_model(
        self,
        tenant: str,
        name: str = "sentiment",
        *,
        base: str = "base",
        domain: str = "general",
        adapter: bytes = b"",
        miss_policy: MissPolicy = MissPolicy.EXACT,
    ) -> str | None:
        """Register a model of the tenant and return its adapter's digest. Empty bytes are no adapter.

        `StubEngine` accepts bytes that are no real adapter.
        """
        artifact = self.artifacts.put({"adapter.safetensors": io.BytesIO(adapter)}) if adapter else None
        with self.database.session() as session:
            models.register_model(
                session,
                tenants.get_tenant(session, tenant).id,
                name,
                base=base,
                domain=domain,
                miss_policy=miss_policy,
                artifact=artifact,
                summary={},
            )
        return artifact

    def submit(self, tenant: str, lines: Sequence[Mapping[str, Any]], *, window_seconds: float = 3600) -> str:
        """Upload the lines, all of one URL, and create a batch of them, as the API does; return its id."""
        endpoint = lines[0]["url"]
        content = b"".join(json.dumps(each).encode() + b"\n" for each in lines)
        file_id = new_id("file-")
        with self.storage.create(f"files/{file_id}") as out:
            out.write(content)
        with self.storage.open(f"files/{file_id}") as stream:
            checked = check_input(stream, endpoint=endpoint, limits=Limits(), shard_lines=self.settings.shard_lines)
        with self.database.session() as session:
            tenant_id = tenants.get_tenant(session, tenant).id
            file = files.create_file(
                session,
                tenant_id,
                NewFile(
                    file_id=file_id,
                    purpose="batch",
                    filename="input.jsonl",
                    bytes=len(content),
                    sha256=hashlib.sha256(content).hexdigest(),
                    path=f"files/{file_id}",
                ),
            )
            batch = batches.create_batch(
                session,
                tenant_id,
                NewBatch(
                    endpoint=endpoint,
                    completion_window="24h",
                    window_seconds=window_seconds,
                    input_file=file,
                    total_lines=checked.total_lines,
                    shards=checked.shards,
                    attributes={},
                    problems=checked.problems,
                ),
                idempotency_key=None,
                max_queued_lines=1_000_000,
            )
        return batch.id

    def batch(self, tenant: str, batch_id: str) -> batches.BatchView:
        with self.database.session(read_only=True) as session:
            return batches.get_batch(session, tenants.get_tenant(session, tenant).id, batch_id)

    def has_ended(self, tenant: str, batch_id: str) -> bool:
        return self.batch(tenant, batch_id).batch.status in ENDED

    def shards(self, batch_id: str) -> list[Shard]:
        with self.database.session(read_only=True) as session:
            return sorted(
                (shard for shard in session.query(Shard) if shard.batch_id == batch_id),
                key=lambda shard: (shard.first_line, -shard.lines),
            )

    def queue(self) -> list[JobMessage]:
        """Dispatch all pending shards and return the messages instead of sending them."""
        with self.database.session() as session:
            return shards.dispatch(session, in_flight=1000)

    def lapse(self, shard_id: str) -> None:
        """Make a shard's lease expire."""
        with self.database.session() as session:
            execute_dml(session, update(Shard).where(Shard.id == shard_id).values(lease_until=1.0))

    def results(self, tenant: str, batch_id: str) -> Results:
        """Audit and return the batch's files: each line is in one of them once, and the counts are right."""
        view = self.batch(tenant, batch_id)
        batch = view.batch
        assert batch.status in ENDED
        answers = self._read(batch.tenant_id, batch.output_file_id)
        errors = self._read(batch.tenant_id, batch.error_file_id)
        with self.storage.open(batch.input_path) as source:
            asked = [json.loads(raw)["custom_id"] for raw in source]
        found = Counter(entry["custom_id"] for entry in [*answers, *errors])
        assert found == Counter(asked)
        assert (len(answers), len(errors)) == (view.completed, view.failed)
        assert view.completed + view.failed == batch.total_lines
        order = {custom_id: place for place, custom_id in enumerate(asked)}
        for entries in (answers, errors):
            places = [order[entry["custom_id"]] for entry in entries]
            assert places == sorted(places)
        return Results(
            batch.status,
            {entry["custom_id"]: entry["response"]["body"] for entry in answers},
            {entry["custom_id"]: entry for entry in errors},
        )

    def working_files(self) -> list[str]:
        """Return files of shards and unfinished files."""
        root = self.storage.local("x")
        assert root is not None
        found = [path for path in root.parent.rglob("*") if path.is_file()]
        return [
            str(path) for path in found if path.suffix == ".tmp" or path.relative_to(root.parent).parts[0] == "shards"
        ]

    def _read(self, tenant_id: str, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        with self.database.session(read_only=True) as session:
            file = files.get_file(session, tenant_id, file_id)
        with self.storage.open(file.path) as stream:
            content = stream.read()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
        return [json.loads(raw) for raw in content.splitlines()]

    def tenant(self, name: str) -> Tenant:
        with self.database.session(read_only=True) as session:
            return tenants.get_tenant(session, name)

    def close(self) -> None:
        self.database.dispose()
