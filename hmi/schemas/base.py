"""What all schemas share: the two base models, times, and OpenAI's lists, deletions and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Generic, Literal, Protocol, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]

# Unix seconds. The catalog has fractions of them, OpenAI's API has none.
Timestamp = Annotated[int, BeforeValidator(int)]
OptionalTimestamp = Annotated[int | None, BeforeValidator(lambda value: None if value is None else int(value))]


class RequestModel(BaseModel):
    """A body as a caller sends it: no value is coerced, and an unknown field is refused instead of dropped."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ResponseModel(BaseModel):
    """A body as the API sends it, which is built from the attributes of a row or a view.

    Unknown fields are kept, so that a client prints all that a newer API sends.
    """

    model_config = ConfigDict(extra="allow", frozen=True, from_attributes=True)


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


ItemT = TypeVar("ItemT")


class Listing(ResponseModel, Generic[ItemT]):
    """A whole list."""

    object: Literal["list"] = "list"
    data: list[ItemT]


class Page(ResponseModel, Generic[ItemT]):
    """A part of a list. While `has_more`, `after=last_id` gets the next part."""

    object: Literal["list"] = "list"
    data: list[ItemT]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: Sequence[_HasId], *, has_more: bool) -> Self:
        """The page of these objects."""
        ends = {"first_id": data[0].id, "last_id": data[-1].id} if data else {"first_id": None, "last_id": None}
        return cls.model_validate({"data": list(data), "has_more": has_more, **ends})


class Deleted(ResponseModel):
    """`object` names the kind of thing that was deleted."""

    id: str
    object: str
    deleted: Literal[True] = True


class ErrorBody(ResponseModel):
    message: Annotated[str, Field(description="What is wrong and where, for a person.")]
    type: Annotated[
        Literal["invalid_request_error", "rate_limit_error", "server_error"], Field(description="Who has to act.")
    ]
    param: Annotated[str | None, Field(description="The field that is meant, if one is.")]
    code: Annotated[str | None, Field(description="Stable, for programs.")]


class ErrorResponse(ResponseModel):
    error: ErrorBody
