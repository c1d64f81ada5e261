"""From pydantic's errors to `InvalidInput`: the field, what it must be, and OpenAI's code.

A validator raises `ValueError` with what follows after the name of the field ("must not hold control characters").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from hmi.errors import InvalidInput
from hmi.jsonlines import is_text

TAG: Final = "#"
"""Begins the tag of a union's member, which pydantic puts into the location of an error and no caller has sent."""

_MOST_SHOWN = 80  # characters of a caller's own names
_CODES = {
    "extra_forbidden": "unknown_parameter",
    "json_invalid": "invalid_json",
    "missing": "missing_required_parameter",
}
# By pydantic's type of error, what follows after the name of the field. Braces are keys of the error's context.
_PHRASES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "enum": "must be one of {expected}",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "is_instance_of": "must be an object",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be one of {expected}",
    "missing": "is missing",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be a string",
    "string_unicode": "holds half a surrogate pair, which is no character",
    "too_long": "has {actual_length} entries; at most {max_length} are allowed",
}
ModelT = TypeVar("ModelT", bound=BaseModel)


class Unsupported(ValueError):
    """Raised by validators of a parameter that is not supported."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"is not supported: {reason}")


def validate(model: type[ModelT], body: Mapping[str, Any], where: str) -> ModelT:
    """Args: where: What the fields belong to, as in `a request to /v1/embeddings`.

    Raises `InvalidInput` whose `param` names the field in the caller's terms.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise invalid_input(error.errors(include_url=False, include_input=False)[0], where) from None


def invalid_input(error: Mapping[str, Any], where: str, path: Sequence[int | str] | None = None) -> InvalidInput:
    """Translate one of pydantic's errors; `path` of the field is by default the error's own location."""
    kind, context = error["type"], error.get("ctx", {})
    whole = error["loc"] if path is None else path
    if kind == "extra_forbidden":
        return _unknown_field(_without_tags(whole[:-1]), str(whole[-1]), where)
    place = _without_tags(whole)
    is_unsupported = isinstance(context.get("error"), Unsupported)
    code = "unsupported_parameter" if is_unsupported else _CODES.get(kind, "invalid_value")
    if kind == "json_invalid":
        return InvalidInput(f"{where} is not JSON: {context.get('error', error['msg'])}", code=code)
    param = _param(place)
    return InvalidInput(f"{param or where} {_phrase(error, context)}", code=code, param=param)


def _phrase(error: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    kind = error["type"]
    if kind in {"string_too_short", "too_short"}:
        if context["min_length"] == 1:
            return "must not be empty"
        return f"must have at least {context['min_length']} {'characters' if kind.startswith('string') else 'entries'}"
    if kind in _PHRASES:
        return _PHRASES[kind].format_map(context)
    if kind == "value_error":
        return str(context["error"])
    return str(error["msg"])


def _without_tags(path: Sequence[int | str]) -> list[int | str]:
    return [part for part in path if not str(part).startswith(TAG)]


def _unknown_field(owner: Sequence[int | str], name: str, where: str) -> InvalidInput:
    """The name is the caller's, so it is repeated only if it can be printed."""
    shown = _param([*owner, name[:_MOST_SHOWN]]) if name.isprintable() and is_text(name) else None
    message = f"{_param(owner) or where} has no field {name[:_MOST_SHOWN]!r}"
    return InvalidInput(message, code=_CODES["extra_forbidden"], param=shown)


def _param(place: Sequence[int | str]) -> str | None:
    """`messages[0].content`; None for the body as a whole."""
    written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return written.removeprefix(".") or None


def invalid(param: str, phrase: str) -> InvalidInput:
    """For a check that spans several fields."""
    return InvalidInput(f"{param} {phrase}", code="invalid_value", param=param)
