"""Answers of the API in which a test names only the fields that it is about."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from hmi.schemas import ResponseModel

__all__ = ["filled", "filled_json"]

_UNIONS = {Union, UnionType}

ModelT = TypeVar("ModelT", bound=ResponseModel)


def filled(model: type[ModelT], /, **fields: Any) -> ModelT:
    """An answer whose other required fields are null, 0, "" or empty, also those of nested objects."""
    return model.model_validate(_complete(model, fields))


def filled_json(model: type[ResponseModel], /, **fields: Any) -> dict[str, Any]:
    written: dict[str, Any] = filled(model, **fields).model_dump(mode="json")
    return written


def _complete(model: type[ResponseModel], fields: Mapping[str, Any]) -> dict[str, Any]:
    required = {name: field.annotation for name, field in model.model_fields.items() if field.is_required()}
    complete = {**{name: _default(kind) for name, kind in required.items()}, **fields}
    for name, field in model.model_fields.items():
        kinds = get_args(field.annotation) if get_origin(field.annotation) in _UNIONS else (field.annotation,)
        for kind in kinds:
            if isinstance(fields.get(name), Mapping) and isinstance(kind, type) and issubclass(kind, ResponseModel):
                complete[name] = _complete(kind, fields[name])
    return complete


def _default(kind: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _default(arguments[0])
    if origin is Literal:
        return arguments[0]
    if origin in _UNIONS:
        return None if NoneType in arguments else _default(arguments[0])
    if origin is not None:
        return origin()
    if issubclass(kind, ResponseModel):
        return _complete(kind, {})
    return next(iter(kind)) if hasattr(kind, "__members__") else kind()
