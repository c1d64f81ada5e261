"""OpenAI's File and Batch objects, and the body that starts a batch."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from hmi.schemas.base import OptionalTimestamp, RequestModel, ResponseModel, Timestamp

_WINDOW = re.compile(r"(\d{1,4})([mh])")
_UNIT_SECONDS = {"m": 60, "h": 3600}
_LONGEST_WINDOW_SECONDS = 30 * 24 * 3600


class FileObject(ResponseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: Annotated[int, Field(description="Size.")]
    created_at: Annotated[Timestamp, Field(description="Unix seconds.")]
    expires_at: Annotated[OptionalTimestamp, Field(description="Unix seconds; from then on the file is not found.")]
    filename: Annotated[str, Field(description="For display only.")]
    purpose: Annotated[
        str, Field(description="`batch` or `fine-tune` for uploads, `batch_output` or `fine-tune-results` for results.")
    ]
    status: Annotated[Literal["processed"], Field(description="Files are ready as soon as they exist.")] = "processed"
    status_details: str | None = None


class FileDeleted(ResponseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def window_seconds(window: str) -> int:
    """Return "24h" or "30m" in seconds; 0 for any other form."""
    match = _WINDOW.fullmatch(window)
    return int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0


def _check_window(window: str) -> str:
    if not 0 < window_seconds(window) <= _LONGEST_WINDOW_SECONDS:
        raise ValueError("must be minutes or hours such as '30m' or '24h', of 30 days at most")
    return window


Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16, description="Up to 16 pairs, kept and returned."),
]


class BatchCreate(RequestModel):
    input_file_id: Annotated[str, Field(description="A file of purpose `batch`.", max_length=64)]
    endpoint: Annotated[
        Literal["/v1/classify", "/v1/embeddings", "/v1/completions", "/v1/chat/completions"],
        Field(description="The `url` of every line."),
    ]
    completion_window: Annotated[
        str,
        Field(
            description="How long the batch may take, in minutes or hours.",
            examples=["24h"],
            json_schema_extra={"pattern": r"^\d{1,4}[mh]$"},
        ),
        AfterValidator(_check_window),
    ]
    metadata: Metadata | None = None

    @property
    def window_seconds(self) -> int:
        return window_seconds(self.completion_window)


class BatchProblem(ResponseModel):
    code: str
    line: Annotated[int | None, Field(description="1-based.")]
    message: str
    param: str | None


class BatchProblems(ResponseModel):
    object: Literal["list"] = "list"
    data: list[BatchProblem]


class RequestCounts(ResponseModel):
    total: int
    completed: int
    failed: int


class InputTokensDetails(ResponseModel):
    cached_tokens: int = 0


class OutputTokensDetails(ResponseModel):
    reasoning_tokens: int = 0


class BatchUsage(ResponseModel):
    input_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class BatchObject(ResponseModel):
    """Times are Unix seconds; one that has not come is null."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: Annotated[str | None, Field(description="Null: each line names its own model.")] = None
    errors: Annotated[BatchProblems | None, Field(description="Why a `failed` batch could not start.")]
    input_file_id: str
    completion_window: str
    status: Literal["failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
    output_file_id: Annotated[str | None, Field(description="Null until the end, and where no line succeeded.")]
    error_file_id: Annotated[str | None, Field(description="Null until the end, and where no line failed.")]
    created_at: Timestamp
    in_progress_at: OptionalTimestamp
    expires_at: Timestamp
    finalizing_at: OptionalTimestamp
    completed_at: OptionalTimestamp
    failed_at: OptionalTimestamp
    expired_at: OptionalTimestamp
    cancelling_at: OptionalTimestamp
    cancelled_at: OptionalTimestamp
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None

    @property
    def is_over(self) -> bool:
        """Whether the status is one that stays."""
        return self.status in {"failed", "completed", "expired", "cancelled"}
