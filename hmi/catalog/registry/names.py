"""Which names and texts are accepted, the same on every database."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hmi.errors import InvalidInput

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str, *, param: str = "name") -> str:
    """Check a tenant's, a domain's or a base model's name. Raises `InvalidInput`."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{param} must be 1 to 63 of a-z, 0-9, '-' and '_', and start with a letter or digit, not {name[:80]!r}",
            param=param,
        )
    return name


def check_model_name(name: str, *, param: str = "name") -> str:
    """Check the part of a model's name after the tenant's. Raises `InvalidInput`."""
    if not _MODEL_NAME.fullmatch(name) or ".." in name:
        raise InvalidInput(
            f"{param} must be 1 to 64 of letters, digits, '.', '-' and '_', and start with a letter or digit, "
            f"not {name[:80]!r}",
            param=param,
        )
    return name


def split_model_name(name: str) -> tuple[str, str] | None:
    """Split "acme/sentiment" into ("acme", "sentiment"); None if it is no full name of a model."""
    tenant, slash, model = name.partition("/")
    if slash and _NAME.fullmatch(tenant) and _MODEL_NAME.fullmatch(model):
        return tenant, model
    return None


def check_text(text: str, *, param: str, max_length: int) -> str:
    """Check text for a column of `max_length` characters. Raises `InvalidInput`."""
    if len(text) > max_length:
        raise InvalidInput(f"{param} is {len(text)} characters long; at most {max_length} are allowed", param=param)
    _check_characters(text, param)
    return text


def check_idempotency_key(key: str | None) -> None:
    """Raises `InvalidInput`."""
    if key is not None:
        check_text(key, param="Idempotency-Key", max_length=128)


def reused_idempotency_key(owner: str) -> InvalidInput:
    """The error for a key that belongs to another request, which made `owner`."""
    message = f"this Idempotency-Key belongs to {owner}, which is another request"
    return InvalidInput(message, code="idempotency_key_reused", param="Idempotency-Key")


def check_json(value: Any, *, param: str) -> None:
    """Raises `InvalidInput` for JSON that not every database can store."""
    if isinstance(value, str):
        _check_characters(value, param)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{param} holds {value}, which JSON cannot", param=param)
    elif isinstance(value, Mapping):
        check_json([*value.keys(), *value.values()], param=param)
    elif isinstance(value, Sequence):
        for each in value:
            check_json(each, param=param)


def _check_characters(text: str, param: str) -> None:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput(f"{param} holds a NUL or half a surrogate pair, which is not text", param=param)
