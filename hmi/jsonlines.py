"""Lines of JSON from untrusted sources: read one at a time with a length limit, and parsed strictly."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from hmi.errors import InvalidInput

__all__ = ["MAX_DEPTH", "is_text", "parse_object", "read_bounded"]

MAX_DEPTH = 32
_SKIP_BYTES = 1024**2


def is_text(value: str) -> bool:
    """Return whether the string is valid UTF-8: JSON's escapes can spell half a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_bounded(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield every line with its line feed, and 0; for a line longer than `max_bytes` its beginning, and the number of
    bytes that were skipped.

    Only the line feed ends a line: JSON may hold every other character that Python treats as a line break.
    """
    while raw := stream.readline(max_bytes + 2):
        yield raw, 0 if raw.endswith(b"\n") else _skip_rest(stream)


def parse_object(raw: bytes, *, unique: bool = False) -> dict[str, Any]:
    """Parse a line that holds a JSON object.

    Args:
        unique: Refuse duplicate fields, of which Python would keep the last.

    Raises `InvalidInput` (code `invalid_json_line`), naming the place in the line.
    """
    hook = _unique if unique else None
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=hook)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8 at byte {error.start}", code="invalid_json_line") from None
    except json.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error.msg} at column {error.colno}", code="invalid_json_line") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # a constant refused below, a field twice, or an integer of thousands of digits
        raise InvalidInput(f"not JSON: {error}", code="invalid_json_line") from None
    if not isinstance(value, dict):
        raise InvalidInput("the line is not a JSON object", code="invalid_json_line")
    _check_depth(value, MAX_DEPTH)
    return value


def _skip_rest(stream: IO[bytes]) -> int:
    """Read to the end of an over-long line; return the number of bytes skipped."""
    skipped = 0
    while chunk := stream.readline(_SKIP_BYTES):
        skipped += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return skipped


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"field {twice[:80]!r} comes twice")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def _too_deep() -> InvalidInput:
    return InvalidInput(f"the line nests deeper than {MAX_DEPTH} levels", code="invalid_json_line")


def _check_depth(value: object, left: int) -> None:
    if not isinstance(value, dict | list):
        return
    if left == 0:
        raise _too_deep()
    for inner in value.values() if isinstance(value, dict) else value:
        _check_depth(inner, left - 1)
