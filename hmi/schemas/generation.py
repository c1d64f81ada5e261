"""Bodies of /v1/completions and /v1/chat/completions: OpenAI's, with vLLM's `top_k` and `ignore_eos`."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from hmi.errors import InvalidInput
from hmi.items import MAX_LOGPROBS, GenerationParams, Sampling, Task
from hmi.schemas.base import RequestModel
from hmi.schemas.inference import Chat, InferenceRequest, Input, Inputs, as_inputs, changes_nothing, entries
from hmi.schemas.validation import TAG, Unsupported, invalid

DEFAULT_MAX_TOKENS = 16  # OpenAI's, for completions; chats are generated up to the end of the context
NO_LIMIT = 2**31 - 1  # tokens: more than any context
MAX_CHOICES = 128
_MAX_TOP_K = 2**21
_MAX_MESSAGES = 2048
# Of one line, whose answer is one piece of JSON with some 60 bytes for each of them.
_MAX_LOGPROBS_OF_A_LINE = 4_000_000
_USUAL_CONTEXT = 4096  # tokens: an upper estimate for texts whose length is left to the model
_TOKEN_CHARACTERS = 4
_TEXT, _PARTS = f"{TAG}text", f"{TAG}parts"

_Stop = Annotated[str, Field(min_length=1, max_length=256)]
_NO_PENALTY = changes_nothing(0, reason="tokens are not penalised")
_NO_TOOLS = "the model calls none"


def _text_or_list(value: object) -> str:
    return _PARTS if isinstance(value, list) else _TEXT


class GenerationRequest(InferenceRequest):
    task: ClassVar[Task] = Task.GENERATE

    max_tokens: Annotated[int | None, Field(ge=0, le=NO_LIMIT)] = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int, Field(ge=-1, le=_MAX_TOP_K, description="0 and -1: all tokens.")] = 0
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stop: (
        Annotated[
            Annotated[_Stop, Tag(_TEXT)] | Annotated[list[_Stop], Field(max_length=4), Tag(_PARTS)],
            Discriminator(_text_or_list),
        ]
        | None
    ) = None
    seed: Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1)] = None
    ignore_eos: bool = False
    presence_penalty: Annotated[Any, _NO_PENALTY] = None
    frequency_penalty: Annotated[Any, _NO_PENALTY] = None
    logit_bias: Annotated[Any, changes_nothing({}, reason="logits are taken as they are")] = None
    stream_options: Annotated[Any, changes_nothing(reason="answers are not streamed")] = None

    @property
    def choices(self) -> int:
        return self.n

    def _params(self, max_tokens: int, logprobs: int | None, *, echo: bool = False) -> GenerationParams:
        return GenerationParams(
            max_tokens=max_tokens,
            sampling=Sampling(
                temperature=self.temperature,
                top_p=self.top_p or math.ulp(1.0),  # 0 leaves the most likely token
                top_k=max(self.top_k, 0),
            ),
            stop=() if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
            logprobs=logprobs,
            echo=echo,
            ignore_eos=self.ignore_eos,
        )

    def _check_logprobs(self, params: GenerationParams, logprobs: int, param: str) -> None:
        """Raises `InvalidInput` for more log-probabilities than one answer should hold."""
        tokens = self.input_count * min(params.max_tokens, _USUAL_CONTEXT)
        if params.echo:
            tokens += sum(len(each) // _TOKEN_CHARACTERS for each in self.inputs if isinstance(each, str))
            tokens += sum(len(each) for each in self.inputs if isinstance(each, tuple))
        count = tokens * self.n * (1 + logprobs)
        if count > _MAX_LOGPROBS_OF_A_LINE:
            most = f"at most {_MAX_LOGPROBS_OF_A_LINE} are returned"
            raise invalid(param, f"requests up to {count} log-probabilities in one answer; {most}")


class CompletionRequest(GenerationRequest):
    input_field: ClassVar[str] = "prompt"

    prompt: Inputs
    echo: bool = False
    logprobs: Annotated[int | None, Field(ge=0, le=MAX_LOGPROBS)] = None
    best_of: Any = None
    suffix: Annotated[Any, changes_nothing("", reason="text is generated after the prompt, not between two texts")] = (
        None
    )

    @property
    def inputs(self) -> tuple[Input, ...]:
        return as_inputs(self.prompt)

    @property
    def input_count(self) -> int:
        return len(entries(self.prompt))

    @property
    def params(self) -> GenerationParams:
        most = DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
        return self._params(most, self.logprobs, echo=self.echo)

    def check(self, max_inputs: int) -> None:
        super().check(max_inputs)
        if self.best_of not in (None, self.n):
            message = "best_of is not supported: all choices are returned"
            raise InvalidInput(message, code="unsupported_parameter", param="best_of")
        if self.max_tokens == 0 and not self.echo:
            raise invalid("max_tokens", "must be at least 1 without echo")
        if self.n > 1 and self.sequences > max_inputs:
            raise invalid("n", f"of {self.input_count} prompts gives more than {max_inputs} texts")
        if self.logprobs is not None:
            self._check_logprobs(self.params, self.logprobs, "logprobs")


class _TextPart(RequestModel):
    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _check_type(cls, part: Any) -> Any:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise Unsupported("messages are text")
        return {"type": "text", "text": part.get("text")}


class _Message(RequestModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag(_TEXT)] | Annotated[list[_TextPart], Field(min_length=1), Tag(_PARTS)],
        Discriminator(_text_or_list),
    ]
    name: Any = None
    refusal: Any = None

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, message: Any) -> Any:
        """What a client library makes of an answer, to be sent back, has all fields of a message, most of them null."""
        if not isinstance(message, dict):
            return message
        given = {name: value for name, value in message.items() if value is not None}
        if given.keys() - cls.model_fields.keys():
            raise Unsupported("messages have a role and a content, and no tools are called")
        return given

    @property
    def role_and_text(self) -> tuple[str, str]:
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return "system" if self.role == "developer" else self.role, content


class ChatRequest(GenerationRequest):
    input_field: ClassVar[str] = "messages"

    messages: Annotated[list[_Message], Field(min_length=1, max_length=_MAX_MESSAGES, fail_fast=True)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=NO_LIMIT)] = None
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_LOGPROBS)] = None
    # Like `user`, these change no answer.
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    tools: Annotated[Any, changes_nothing([], reason=_NO_TOOLS)] = None
    tool_choice: Annotated[Any, changes_nothing("none", "auto", reason=_NO_TOOLS)] = None
    functions: Annotated[Any, changes_nothing([], reason=_NO_TOOLS)] = None
    function_call: Annotated[Any, changes_nothing("none", "auto", reason=_NO_TOOLS)] = None
    parallel_tool_calls: Annotated[Any, changes_nothing(True, reason=_NO_TOOLS)] = None
    response_format: Annotated[Any, changes_nothing({"type": "text"}, reason="answers are free text")] = None
    modalities: Annotated[Any, changes_nothing(["text"], reason="answers are text")] = None
    audio: Annotated[Any, changes_nothing(reason="answers are text")] = None
    reasoning_effort: Annotated[Any, changes_nothing("none", reason="the model answers at once")] = None
    verbosity: Annotated[Any, changes_nothing("medium", reason="the model decides how long an answer is")] = None
    service_tier: Annotated[
        Any, changes_nothing("auto", "default", reason="all lines of a tenant have the same priority")
    ] = None
    store: Annotated[Any, changes_nothing(False, reason="answers are kept in the batch's output file alone")] = None
    metadata: Annotated[Any, changes_nothing({}, reason="a batch has metadata, its lines have none")] = None

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Chat(tuple(message.role_and_text for message in self.messages)),)

    @property
    def input_count(self) -> int:
        return 1

    @property
    def params(self) -> GenerationParams:
        most = self.max_completion_tokens or self.max_tokens or NO_LIMIT
        return self._params(most, (self.top_logprobs or 0) if self.logprobs else None)

    def check(self, max_inputs: int) -> None:
        if self.max_tokens == 0 and self.max_completion_tokens is None:
            raise invalid("max_tokens", "must be at least 1")
        if self.top_logprobs is not None and not self.logprobs:
            raise invalid("top_logprobs", "needs logprobs to be true")
        if not any(message.role_and_text[1] for message in self.messages):
            raise invalid("messages", "must not all be empty")
        if self.logprobs:
            self._check_logprobs(self.params, self.top_logprobs or 0, "top_logprobs")
