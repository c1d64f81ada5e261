"""The body of one request: OpenAI's shape for /v1/embeddings, /v1/completions and /v1/chat/completions, vLLM's for
/v1/classify.

Nothing is dropped without a word: a parameter that would change the answer and is not supported is refused
by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hmi.errors import InvalidInput
from hmi.items import Task
from hmi.jobs.completions import CHAT, COMPLETIONS, parse_chat, parse_completion
from hmi.jobs.fields import (
    Chat,
    EncodingFormat,
    LineRequest,
    check_common,
    invalid,
    parse_inputs,
    parse_model,
    require_known,
    unsupported,
)
from hmi.jobs.lines import Limits

__all__ = ["ENDPOINTS", "TRUNCATE_TO_MODEL", "Chat", "EncodingFormat", "LineRequest", "parse_body"]

CLASSIFY, EMBEDDINGS = "/v1/classify", "/v1/embeddings"
ENDPOINTS = (CLASSIFY, EMBEDDINGS, COMPLETIONS, CHAT)

# `truncate_prompt_tokens: -1` asks for the model's own limit, which is less than this for every model.
TRUNCATE_TO_MODEL = 2**31 - 1

_COMMON = frozenset({"model", "input", "truncate_prompt_tokens", "user", "stream"})
_TASKS: Mapping[str, Task] = {CLASSIFY: Task.CLASSIFY, EMBEDDINGS: Task.EMBED}
_ALLOWED: Mapping[Task, frozenset[str]] = {
    Task.CLASSIFY: _COMMON | {"use_activation"},
    Task.EMBED: _COMMON | {"encoding_format", "dimensions"},
}


def parse_body(url: str, body: Mapping[str, Any], limits: Limits) -> LineRequest:
    """Raises `InvalidInput` with `param` naming the field in the caller's terms."""
    if url == COMPLETIONS:
        return parse_completion(body, limits)
    if url == CHAT:
        return parse_chat(body)
    task = _TASKS.get(url)
    if task is None:
        raise InvalidInput(f"url must be one of {', '.join(ENDPOINTS)}", code="invalid_value", param="url")
    require_known(url, body, _ALLOWED[task])
    return LineRequest(
        model=parse_model(body),
        inputs=parse_inputs(body, "input", limits),
        task=task,
        truncate_to=_parse_truncation(body.get("truncate_prompt_tokens")),
        encoding_format=_parse_options(body),
    )


def _parse_truncation(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not (value == -1 or 1 <= value <= TRUNCATE_TO_MODEL):
        raise invalid("truncate_prompt_tokens", "must be a positive whole number, or -1 for the model's own limit")
    return TRUNCATE_TO_MODEL if value == -1 else value


def _parse_options(body: Mapping[str, Any]) -> EncodingFormat:
    check_common(body)
    if body.get("use_activation") not in (None, True):
        raise unsupported("use_activation", "answers are probabilities, never raw logits")
    if body.get("dimensions") is not None:
        raise unsupported("dimensions", "embeddings have the model's own number of dimensions")
    wanted = body.get("encoding_format")
    if wanted is None:
        return EncodingFormat.FLOAT
    try:
        return EncodingFormat(wanted)
    except ValueError:
        raise invalid("encoding_format", f"must be one of {', '.join(EncodingFormat)}") from None
