"""One line of a batch's input file: strict JSON with `custom_id`, `method`, `url` and `body`.

Whatever fails here cannot be answered by a line of its own, since there is no trustworthy `custom_id` to
answer to; it fails the batch at validation. What is wrong inside `body` is `hmi.jobs.requests`' subject.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from hmi.errors import InvalidInput
from hmi.jsonlines import is_text, parse_object

__all__ = ["BatchLine", "Limits", "parse_line", "read_lines", "unknown_field"]

MAX_CUSTOM_ID = 512
_FIELDS = frozenset({"custom_id", "method", "url", "body"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may send.

    Attributes:
        max_line_bytes: Longest line, its line feed left out.
        max_lines: Most lines of a file.
        max_inputs: Most texts or token lists in one line's `input`.
    """

    max_line_bytes: int = 1024**2
    max_lines: int = 50_000
    max_inputs: int = 2048


@dataclass(frozen=True, slots=True)
class BatchLine:
    custom_id: str
    url: str
    body: Mapping[str, Any]


def unknown_field(where: str, name: str) -> InvalidInput:
    """The name is the caller's, so it is only repeated as far as it can be printed."""
    shown = name[:80] if name.isprintable() and is_text(name) else None
    return InvalidInput(f"{where} has no field {name[:80]!r}", code="unknown_parameter", param=shown)


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
    line = parse_object(raw)
    unknown = sorted(line.keys() - _FIELDS)
    if unknown:
        raise unknown_field("the line", unknown[0])
    for field in ("custom_id", "method", "url", "body"):
        if field not in line:
            raise InvalidInput(f"{field} is missing", code="missing_required_parameter", param=field)
    custom_id, method, url, body = line["custom_id"], line["method"], line["url"], line["body"]
    _check_custom_id(custom_id)
    if method != "POST":
        raise InvalidInput("method must be POST", code="invalid_value", param="method")
    if not isinstance(url, str):
        raise InvalidInput("url must be a string", code="invalid_value", param="url")
    if not isinstance(body, dict):
        raise InvalidInput("body must be an object", code="invalid_value", param="body")
    return BatchLine(custom_id, url, body)


def _check_custom_id(value: object) -> None:
    if not isinstance(value, str):
        raise InvalidInput("custom_id must be a string", code="invalid_value", param="custom_id")
    if not 1 <= len(value) <= MAX_CUSTOM_ID:
        raise InvalidInput(
            f"custom_id must have 1 to {MAX_CUSTOM_ID} characters", code="invalid_value", param="custom_id"
        )
    if not is_text(value) or any(unicodedata.category(character) == "Cc" for character in value):
        raise InvalidInput("custom_id must not hold control characters", code="invalid_value", param="custom_id")
