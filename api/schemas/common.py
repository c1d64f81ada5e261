"""Shapes that all endpoints share: lists, deletions, errors."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Deleted", "ErrorBody", "ErrorResponse", "Listing", "Page", "RequestBody", "errors"]

ItemT = TypeVar("ItemT")


class RequestBody(BaseModel):
    """A JSON body. Unknown fields are refused: dropping one would change what the caller asked for."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(BaseModel):
    message: Annotated[str, Field(description="What is wrong and where, for a person.")]
    type: Annotated[
        Literal["invalid_request_error", "rate_limit_error", "server_error"], Field(description="Who has to act.")
    ]
    param: Annotated[str | None, Field(description="The field that is meant, if one is.")]
    code: Annotated[str | None, Field(description="Stable, for programs.")]


class ErrorResponse(BaseModel):
    error: ErrorBody


class Listing(BaseModel, Generic[ItemT]):
    """A whole list."""

    object: Literal["list"] = "list"
    data: list[ItemT]


class Page(BaseModel, Generic[ItemT]):
    """A part of a list; the next one is asked for with `after=last_id` while `has_more`."""

    object: Literal["list"] = "list"
    data: list[ItemT]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """`object` names the kind of thing that is gone."""

    id: str
    object: str
    deleted: Literal[True] = True


_MEANINGS = {
    400: "The request cannot be understood.",
    401: "No API key, or one that is unknown, expired or revoked.",
    403: "The key is good, but not for this.",
    404: "It does not exist, or it is another tenant's: the same answer.",
    409: "It exists already, or its state does not allow this. Clients are told not to retry.",
    413: "The body is larger than the server takes.",
    429: "A quota is full. Come back after `retry-after` seconds.",
    503: "A service that is needed does not answer. Come back after `retry-after` seconds.",
    507: "No room left where files are kept.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of an operation that may fail so; 400 and 503 are always among them."""
    return {
        status: {"model": ErrorResponse, "description": _MEANINGS[status]} for status in sorted({400, 503, *statuses})
    }
