"""Bodies of /v1/classify (vLLM's shape) and /v1/embeddings (OpenAI's), and what all inference requests share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic import ValidatorFunctionWrapHandler as Handler

from hmi.items import GenerationParams, Task
from hmi.schemas.base import RequestModel
from hmi.schemas.validation import TAG, Unsupported, invalid

# `truncate_prompt_tokens: -1` asks for the model's own limit, which is less than this for every model.
TRUNCATE_TO_MODEL = 2**31 - 1
_MAX_TOKEN_ID = 2**21 - 2  # ids are kept in 21 bits with one value set apart
_TEXT, _TEXTS, _TOKENS, _TOKEN_LISTS = (f"{TAG}{each}" for each in ("text", "texts", "tokens", "token lists"))


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages, (role, content)."""

    messages: tuple[tuple[str, str], ...]


def changes_nothing(*harmless: object, reason: str) -> PlainValidator:
    """Of a parameter without support: only null and the values that change no answer are accepted."""

    def check(value: object) -> object:
        if value is not None and value not in harmless:
            raise Unsupported(reason)
        return value

    return PlainValidator(check)


def _all_tokens(value: object, handler: Handler) -> object:
    """One error for a list, not one for each entry."""
    if not isinstance(value, list):
        raise ValueError("must be a string or a list of token ids")
    try:
        return handler(value)
    except ValidationError as error:
        if not value:
            raise
        raise ValueError(f"must hold token ids only, whole numbers from 0 to {_MAX_TOKEN_ID}") from error


def _kind(value: object) -> str | None:
    """The member of `Inputs` that a value is meant to be, by its first entry."""
    if isinstance(value, str):
        return _TEXT
    if not isinstance(value, list):
        return None
    first = value[0] if value else ""
    return _TEXTS if isinstance(first, str) else _TOKENS if isinstance(first, int) else _TOKEN_LISTS


Text = Annotated[str, Field(min_length=1)]
_TokenId = Annotated[int, Field(ge=0, le=_MAX_TOKEN_ID)]
_Tokens = Annotated[list[_TokenId], Field(min_length=1, fail_fast=True), WrapValidator(_all_tokens)]
Inputs = Annotated[
    Annotated[Text, Tag(_TEXT)]
    | Annotated[list[Text], Field(min_length=1, fail_fast=True), Tag(_TEXTS)]
    | Annotated[_Tokens, Tag(_TOKENS)]
    | Annotated[list[_Tokens], Field(fail_fast=True), Tag(_TOKEN_LISTS)],
    Discriminator(
        _kind,
        custom_error_type="unknown_form",
        custom_error_message="must be a string, a list of strings, a list of token ids, or a list of such lists",
    ),
]
Input = str | tuple[int, ...] | Chat


class InferenceRequest(RequestModel):
    """A body that the engine runs; null is the same as a field that is left out."""

    task: ClassVar[Task]
    input_field: ClassVar[str]  # where the body has its inputs; errors about an input name it

    model: Annotated[str, Field(min_length=1, max_length=256)]  # `<tenant>/<model>`
    user: str | None = None
    stream: Annotated[Any, changes_nothing(False, reason="answers are not streamed")] = None

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if value is not None or name not in cls.model_fields}

    @property
    @abstractmethod
    def inputs(self) -> tuple[Input, ...]:
        """One entry for each input: a text, token ids that already hold the special tokens, or a chat."""

    @property
    @abstractmethod
    def input_count(self) -> int: ...

    @property
    def choices(self) -> int:
        """Generated answers to each input."""
        return 1

    @property
    def sequences(self) -> int:
        """Sequences that the engine runs for the request."""
        return self.input_count * self.choices

    @property
    def truncate_to(self) -> int | None:
        """As in `hmi.items.Item`; `TRUNCATE_TO_MODEL` for the model's own limit."""
        return None

    @property
    def params(self) -> GenerationParams | None:
        return None

    def check(self, max_inputs: int) -> None:
        """Check what spans several fields. Raises `InvalidInput`."""
        if self.input_count > max_inputs:
            raise invalid(self.input_field, f"has {self.input_count} entries; at most {max_inputs} are allowed")

    @property
    def length_advice(self) -> str:
        """What to do about an input with too many tokens."""
        return "shorten it"


def _check_truncation(value: int) -> int:
    if not value:
        raise ValueError("must be a positive whole number, or -1 for the model's own limit")
    return value


class _PoolingRequest(InferenceRequest):
    input_field: ClassVar[str] = "input"

    input: Inputs
    truncate_prompt_tokens: Annotated[
        int | None, Field(ge=-1, le=TRUNCATE_TO_MODEL), AfterValidator(_check_truncation)
    ] = None

    @property
    def inputs(self) -> tuple[Input, ...]:
        return as_inputs(self.input)

    @property
    def input_count(self) -> int:
        return len(entries(self.input))

    @property
    def truncate_to(self) -> int | None:
        return TRUNCATE_TO_MODEL if self.truncate_prompt_tokens == -1 else self.truncate_prompt_tokens

    @property
    def length_advice(self) -> str:
        return "shorten it or set truncate_prompt_tokens"


class ClassificationRequest(_PoolingRequest):
    task: ClassVar[Task] = Task.CLASSIFY

    use_activation: Annotated[Any, changes_nothing(True, reason="answers are probabilities, never raw logits")] = None


class EmbeddingRequest(_PoolingRequest):
    task: ClassVar[Task] = Task.EMBED

    encoding_format: Annotated[
        Literal["float", "base64"], Field(description="Numbers, or base64 of little-endian float32.")
    ] = "float"
    dimensions: Annotated[Any, changes_nothing(reason="embeddings have the model's own number of dimensions")] = None


def entries(given: Sequence[Any] | str) -> Sequence[Any]:
    """The inputs of a field of `Inputs`, which may be one or several."""
    return [given] if isinstance(given, str) or isinstance(given[0], int) else given


def as_inputs(given: Sequence[Any] | str) -> tuple[Input, ...]:
    return tuple(each if isinstance(each, str) else tuple(each) for each in entries(given))
