"""Fields that the bodies of several endpoints have, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hmi.errors import InvalidInput
from hmi.items import GenerationParams, Task
from hmi.jobs.lines import Limits, unknown_field
from hmi.jsonlines import is_text

__all__ = [
    "Chat",
    "EncodingFormat",
    "LineRequest",
    "check_common",
    "invalid",
    "parse_inputs",
    "parse_model",
    "parse_text",
    "require_known",
    "unsupported",
]

_MAX_TOKEN_ID = 2**21 - 2  # ids are kept in 21 bits with one value set apart
_MAX_MODEL_NAME = 256


class EncodingFormat(StrEnum):
    """How an embedding is written: numbers, or base64 of little-endian float32."""

    FLOAT = "float"
    BASE64 = "base64"


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages, (role, content)."""

    messages: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LineRequest:
    """A body that was understood.

    Attributes:
        model: The name as the caller wrote it, `<tenant>/<model>`.
        inputs: One entry for each sequence: a text, token ids that already hold the special tokens, or a chat.
        truncate_to: As in `hmi.items.Item`; `TRUNCATE_TO_MODEL` for the model's own limit.
        params: How texts are continued.
        choices: Continuations of each input.
        seed: Of their draws; None: the line's place in its batch decides.
    """

    model: str
    inputs: tuple[str | tuple[int, ...] | Chat, ...]
    task: Task
    truncate_to: int | None = None
    encoding_format: EncodingFormat = EncodingFormat.FLOAT
    params: GenerationParams | None = None
    choices: int = 1
    seed: int | None = None

    @property
    def sequences(self) -> int:
        """That the engine runs for it."""
        return len(self.inputs) * self.choices


def require_known(url: str, body: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raises `InvalidInput` for a field that a request to `url` does not have."""
    unknown = sorted(body.keys() - set(allowed))
    if unknown:
        raise unknown_field(f"a request to {url}", unknown[0])


def check_common(body: Mapping[str, Any]) -> None:
    """What all endpoints have and none makes use of."""
    if body.get("stream") not in (None, False):
        raise unsupported("stream", "answers are not streamed")
    if not isinstance(body.get("user"), str | None):
        raise invalid("user", "must be a string")


def parse_model(body: Mapping[str, Any]) -> str:
    if body.get("model") is None:
        raise InvalidInput("model is missing", code="missing_required_parameter", param="model")
    model = body["model"]
    if not isinstance(model, str) or not 1 <= len(model) <= _MAX_MODEL_NAME or not is_text(model):
        raise invalid("model", f"must be a name of 1 to {_MAX_MODEL_NAME} characters")
    return model


def parse_inputs(body: Mapping[str, Any], name: str, limits: Limits) -> tuple[str | tuple[int, ...], ...]:
    value = body.get(name)
    if value is None:
        raise InvalidInput(f"{name} is missing", code="missing_required_parameter", param=name)
    if isinstance(value, str):
        return (parse_text(value, name),)
    if not isinstance(value, list):
        raise invalid(name, "must be a string, a list of strings, a list of token ids, or a list of such lists")
    if not value:
        raise invalid(name, "must not be empty")
    if isinstance(value[0], int):
        return (_parse_tokens(value, name),)
    if len(value) > limits.max_inputs:
        raise invalid(name, f"has {len(value)} entries; at most {limits.max_inputs} are allowed")
    parse = parse_text if isinstance(value[0], str) else _parse_tokens
    return tuple(parse(each, f"{name}[{index}]") for index, each in enumerate(value))


def parse_text(value: object, param: str, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise invalid(param, "must be a string, as the first entry is")
    if not value and not may_be_empty:
        raise invalid(param, "must not be empty")
    if not is_text(value):
        raise invalid(param, "holds half a surrogate pair, which is no character")
    return value


def _parse_tokens(value: object, param: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise invalid(param, "must be a string or a list of token ids")
    if not value:
        raise invalid(param, "must not be empty")
    for each in value:
        # bool is an int to Python, not to a caller
        if type(each) is not int or not 0 <= each <= _MAX_TOKEN_ID:
            raise invalid(param, f"must hold token ids only, whole numbers from 0 to {_MAX_TOKEN_ID}")
    return tuple(value)


def invalid(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{param} {reason}", code="invalid_value", param=param)


def unsupported(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{param} is not supported: {reason}", code="unsupported_parameter", param=param)
