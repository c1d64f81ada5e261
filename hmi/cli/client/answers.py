"""What the API answers, as far as the command line reads it.

Unknown fields are kept, so that `--json` prints what the API sent and a newer server can still be read.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = [
    "Answer",
    "ApiKey",
    "Base",
    "Batch",
    "BatchError",
    "BatchErrors",
    "Deleted",
    "Delta",
    "Domain",
    "File",
    "Frequencies",
    "Model",
    "NewKey",
    "Node",
    "Readiness",
    "RequestCounts",
    "Tenant",
]


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class Tenant(Answer):
    name: str
    weight: int = 1


class ApiKey(Answer):
    """`id` is the key's public part. Times are Unix seconds."""

    id: str
    role: str = ""
    label: str = ""
    created_at: float | None = None
    expires_at: float | None = None
    revoked_at: float | None = None


class NewKey(Answer):
    """`key` is the whole key; the API shows it this once."""

    id: str
    key: str


class Domain(Answer):
    name: str
    parent: str | None = None


class Delta(Answer):
    """A domain's own version of a base model's lower layers. `summary` has its rank, layers and bytes."""

    base: str
    domain: str
    artifact: str = ""
    summary: dict[str, Any] = {}
    created_at: float | None = None


class Deleted(Answer):
    id: str


class Base(Answer):
    name: str
    artifact: str = ""
    spec: dict[str, Any] = {}
    tree: int | None = None


class Model(Answer):
    """`summary` says what the adapter is: kind, rank, labels, bytes."""

    name: str
    base: str = ""
    domain: str = ""
    miss_policy: str = ""
    revision: int = 1
    summary: dict[str, Any] = {}


class Readiness(Answer):
    """Each check says `ok`, or what is not."""

    status: str
    checks: dict[str, str] = {}


class Frequencies(Answer):
    """What counting texts gave. `windows` are tokens, special tokens included."""

    texts: int = 0
    windows: int = 0
    ngrams: int = 0


class Node(Answer):
    """A worker process. `stats` is what its engine says of itself, see `hmi.engine`."""

    name: str
    device: str = ""
    pid: int = 0
    seen_at: float | None = None
    stats: dict[str, Any] = {}


class File(Answer):
    id: str
    bytes: int = 0
    filename: str = ""


class RequestCounts(Answer):
    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchError(Answer):
    code: str | None = None
    message: str = ""
    line: int | None = None


class BatchErrors(Answer):
    data: list[BatchError] = []


class Batch(Answer):
    id: str
    status: str
    endpoint: str = ""
    input_file_id: str = ""
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int = 0
    in_progress_at: int | None = None
    completed_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    errors: BatchErrors | None = None

    @property
    def is_over(self) -> bool:
        """It has reached a status that it will keep."""
        return self.status in {"failed", "completed", "expired", "cancelled"}
