"""The body of one request: OpenAI's shape for /v1/embeddings, vLLM's for /v1/classify.

Nothing is dropped without a word: a parameter that would change the answer and is not supported is refused
by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hmi.engine.request import Task
from hmi.errors import InvalidInput
from hmi.jobs.lines import Limits, unknown_field
from hmi.jsonlines import is_text

__all__ = ["ENDPOINTS", "TRUNCATE_TO_MODEL", "EncodingFormat", "LineRequest", "parse_body"]

ENDPOINTS: Mapping[str, Task] = {"/v1/classify": Task.CLASSIFY, "/v1/embeddings": Task.EMBED}

# `truncate_prompt_tokens: -1` asks for the model's own limit, which is less than this for every model.
TRUNCATE_TO_MODEL = 2**31 - 1

_MAX_TOKEN_ID = 2**21 - 2  # ids are kept in 21 bits with one value set apart
_MAX_MODEL_NAME = 256
_COMMON = frozenset({"model", "input", "truncate_prompt_tokens", "user", "stream"})
_ALLOWED: Mapping[Task, frozenset[str]] = {
    Task.CLASSIFY: _COMMON | {"use_activation"},
    Task.EMBED: _COMMON | {"encoding_format", "dimensions"},
}


class EncodingFormat(StrEnum):
    """How an embedding is written: numbers, or base64 of little-endian float32."""

    FLOAT = "float"
    BASE64 = "base64"


@dataclass(frozen=True, slots=True)
class LineRequest:
    """A body that was understood.

    Attributes:
        model: The name as the caller wrote it, `<tenant>/<model>`.
        inputs: One entry for each sequence: a text, or token ids that already hold the special tokens.
        truncate_to: As in `hmi.engine.request.Item`; `TRUNCATE_TO_MODEL` for the model's own limit.
    """

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    task: Task
    truncate_to: int | None = None
    encoding_format: EncodingFormat = EncodingFormat.FLOAT


def parse_body(url: str, body: Mapping[str, Any], limits: Limits) -> LineRequest:
    """Raises `InvalidInput` with `param` naming the field in the caller's terms."""
    task = ENDPOINTS.get(url)
    if task is None:
        raise InvalidInput(f"url must be one of {', '.join(ENDPOINTS)}", code="invalid_value", param="url")
    unknown = sorted(body.keys() - _ALLOWED[task])
    if unknown:
        raise unknown_field(f"a request to {url}", unknown[0])
    return LineRequest(
        model=_parse_model(body),
        inputs=_parse_inputs(body, limits),
        task=task,
        truncate_to=_parse_truncation(body.get("truncate_prompt_tokens")),
        encoding_format=_parse_options(body),
    )


def _parse_model(body: Mapping[str, Any]) -> str:
    if body.get("model") is None:
        raise InvalidInput("model is missing", code="missing_required_parameter", param="model")
    model = body["model"]
    if not isinstance(model, str) or not 1 <= len(model) <= _MAX_MODEL_NAME or not is_text(model):
        raise _invalid("model", f"must be a name of 1 to {_MAX_MODEL_NAME} characters")
    return model


def _parse_inputs(body: Mapping[str, Any], limits: Limits) -> tuple[str | tuple[int, ...], ...]:
    if body.get("input") is None:
        raise InvalidInput("input is missing", code="missing_required_parameter", param="input")
    value = body["input"]
    if isinstance(value, str):
        return (_parse_text(value, "input"),)
    if not isinstance(value, list):
        raise _invalid("input", "must be a string, a list of strings, a list of token ids, or a list of such lists")
    if not value:
        raise _invalid("input", "must not be empty")
    if isinstance(value[0], int):
        return (_parse_tokens(value, "input"),)
    if len(value) > limits.max_inputs:
        raise _invalid("input", f"has {len(value)} entries; at most {limits.max_inputs} are allowed")
    parse = _parse_text if isinstance(value[0], str) else _parse_tokens
    return tuple(parse(each, f"input[{index}]") for index, each in enumerate(value))


def _parse_text(value: object, param: str) -> str:
    if not isinstance(value, str):
        raise _invalid(param, "must be a string, as the first entry is")
    if not value:
        raise _invalid(param, "must not be empty")
    if not is_text(value):
        raise _invalid(param, "holds half a surrogate pair, which is no character")
    return value


def _parse_tokens(value: object, param: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _invalid(param, "must be a string or a list of token ids")
    if not value:
        raise _invalid(param, "must not be empty")
    for each in value:
        # bool is an int to Python, not to a caller
        if type(each) is not int or not 0 <= each <= _MAX_TOKEN_ID:
            raise _invalid(param, f"must hold token ids only, whole numbers from 0 to {_MAX_TOKEN_ID}")
    return tuple(value)


def _parse_truncation(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not (value == -1 or 1 <= value <= TRUNCATE_TO_MODEL):
        raise _invalid("truncate_prompt_tokens", "must be a positive whole number, or -1 for the model's own limit")
    return TRUNCATE_TO_MODEL if value == -1 else value


def _parse_options(body: Mapping[str, Any]) -> EncodingFormat:
    if body.get("stream") not in (None, False):
        raise _unsupported("stream", "answers are not streamed")
    if body.get("use_activation") not in (None, True):
        raise _unsupported("use_activation", "answers are probabilities, never raw logits")
    if body.get("dimensions") is not None:
        raise _unsupported("dimensions", "embeddings have the model's own number of dimensions")
    if not isinstance(body.get("user"), str | None):
        raise _invalid("user", "must be a string")
    wanted = body.get("encoding_format")
    if wanted is None:
        return EncodingFormat.FLOAT
    try:
        return EncodingFormat(wanted)
    except ValueError:
        raise _invalid("encoding_format", f"must be one of {', '.join(EncodingFormat)}") from None


def _invalid(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{param} {reason}", code="invalid_value", param=param)


def _unsupported(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{param} is not supported: {reason}", code="unsupported_parameter", param=param)
