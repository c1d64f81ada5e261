"""OpenAI's Batch object, and what asks for one."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from api.schemas.common import RequestBody
from hmi.catalog import BatchStatus, BatchView

__all__ = ["BatchCreate", "BatchObject", "CompletionWindow", "Metadata"]

_WINDOW = re.compile(r"(\d{1,4})([mh])")
_UNIT_SECONDS = {"m": 60, "h": 3600}
_LONGEST_WINDOW_SECONDS = 30 * 24 * 3600


def window_seconds(window: str) -> int:
    """ "24h" or "30m" in seconds. Raises ValueError for any other form and for more than 30 days."""
    match = _WINDOW.fullmatch(window)
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST_WINDOW_SECONDS:
        raise ValueError("must be minutes or hours such as '30m' or '24h', of 30 days at most")
    return seconds


def _check_window(window: str) -> str:
    window_seconds(window)
    return window


CompletionWindow = Annotated[
    str,
    Field(description="How long the batch may take, in minutes or hours.", examples=["24h"], pattern=r"^\d{1,4}[mh]$"),
    AfterValidator(_check_window),
]
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16, description="Up to 16 pairs, kept and returned."),
]


class BatchCreate(RequestBody):
    input_file_id: Annotated[str, Field(description="A file of purpose `batch`.", max_length=64)]
    endpoint: Annotated[
        Literal["/v1/classify", "/v1/embeddings", "/v1/completions", "/v1/chat/completions"],
        Field(description="What every line's `url` names as well."),
    ]
    completion_window: CompletionWindow
    metadata: Metadata | None = None

    @property
    def window_seconds(self) -> int:
        return window_seconds(self.completion_window)


class BatchProblem(BaseModel):
    code: str
    line: Annotated[int | None, Field(description="1-based.")]
    message: str
    param: str | None


class BatchProblems(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchProblem]


class RequestCounts(BaseModel):
    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    cached_tokens: int = 0


class OutputTokensDetails(BaseModel):
    reasoning_tokens: int = 0


class BatchUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class BatchObject(BaseModel):
    """Times are Unix seconds; one that has not come is null."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: Annotated[str | None, Field(description="Null: each line names its own model.")] = None
    errors: Annotated[BatchProblems | None, Field(description="Why a `failed` batch could not start.")]
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: Annotated[str | None, Field(description="Null until the end, and where no line succeeded.")]
    error_file_id: Annotated[str | None, Field(description="Null until the end, and where no line failed.")]
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None

    @classmethod
    def from_view(cls, view: BatchView) -> Self:
        batch = view.batch
        problems = [BatchProblem.model_validate(each) for each in batch.errors]
        return cls(
            id=batch.id,
            endpoint=batch.endpoint,
            errors=BatchProblems(data=problems) if problems else None,
            input_file_id=batch.input_file_id,
            completion_window=batch.completion_window,
            status=BatchStatus(batch.status),
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            created_at=int(batch.created_at),
            in_progress_at=_seconds(batch.in_progress_at),
            expires_at=int(batch.expires_at),
            finalizing_at=_seconds(batch.finalizing_at),
            completed_at=_seconds(batch.completed_at),
            failed_at=_seconds(batch.failed_at),
            expired_at=_seconds(batch.expired_at),
            cancelling_at=_seconds(batch.cancelling_at),
            cancelled_at=_seconds(batch.cancelled_at),
            request_counts=RequestCounts(total=batch.total_lines, completed=view.completed, failed=view.failed),
            usage=BatchUsage(
                input_tokens=view.input_tokens,
                output_tokens=view.output_tokens,
                total_tokens=view.input_tokens + view.output_tokens,
            ),
            metadata=batch.attributes or None,
        )


def _seconds(time: float | None) -> int | None:
    return None if time is None else int(time)
