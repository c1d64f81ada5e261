"""One line of a batch's input file: strict JSON with `custom_id`, `method`, `url` and `body`.

A line without a valid `custom_id` cannot have an error line of its own, so a fault outside of `body` fails the whole
batch (`parse_line`). A fault inside `body` fails that line alone (`parse_body`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Annotated, Any, Literal

from pydantic import AfterValidator, Field, InstanceOf

from hmi.errors import InvalidInput
from hmi.jsonlines import parse_object
from hmi.schemas.base import RequestModel
from hmi.schemas.generation import ChatRequest, CompletionRequest
from hmi.schemas.inference import ClassificationRequest, EmbeddingRequest, InferenceRequest
from hmi.schemas.validation import validate

CLASSIFY, EMBEDDINGS = "/v1/classify", "/v1/embeddings"
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
ENDPOINTS: Mapping[str, type[InferenceRequest]] = {
    CLASSIFY: ClassificationRequest,
    EMBEDDINGS: EmbeddingRequest,
    COMPLETIONS: CompletionRequest,
    CHAT: ChatRequest,
}
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may send."""

    max_line_bytes: int = 1024**2  # without the line feed
    max_lines: int = 50_000  # of a file
    max_inputs: int = 2048  # texts or token lists in one line


def _check_custom_id(value: str) -> str:
    if _CONTROL_CHARACTER.search(value):
        raise ValueError("must not hold control characters")
    return value


class BatchLine(RequestModel):
    custom_id: Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_check_custom_id)]
    method: Literal["POST"]
    url: str
    body: InstanceOf[dict[str, Any]]  # by `url`, one of `ENDPOINTS`; it is validated apart


def read_lines(stream: IO[bytes], length: int) -> Iterator[bytes]:
    """The lines in the next `length` bytes of a checked file, line feeds stripped.

    Only the line feed ends a line: JSON may hold every other character that Python calls a line break.
    """
    left = length
    while left > 0:
        line = stream.readline(left)
        if not line:
            return
        left -= len(line)
        yield line.rstrip(b"\r\n")


def parse_line(raw: bytes, limits: Limits) -> BatchLine:
    """Parse one line, without or with its line feed.

    Raises `InvalidInput` whose code is `line_too_long`, `invalid_json_line`, `missing_required_parameter`,
    `unknown_parameter` or `invalid_value`.
    """
    raw = raw.rstrip(b"\r\n")
    if len(raw) > limits.max_line_bytes:
        raise InvalidInput(
            f"the line is {len(raw)} bytes long; at most {limits.max_line_bytes} are allowed", code="line_too_long"
        )
    return validate(BatchLine, parse_object(raw), "the line")


def parse_body(url: str, body: Mapping[str, Any], limits: Limits) -> InferenceRequest:
    """Raises `InvalidInput` with `param` naming the field in the caller's terms."""
    model = ENDPOINTS.get(url)
    if model is None:
        raise InvalidInput(f"url must be one of {', '.join(ENDPOINTS)}", code="invalid_value", param="url")
    request = validate(model, body, f"a request to {url}")
    request.check(limits.max_inputs)
    return request
