"""The bodies of /v1/completions and /v1/chat/completions: OpenAI's, with vLLM's `top_k` and `ignore_eos`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hmi.errors import InvalidInput
from hmi.items import MAX_LOGPROBS, GenerationParams, Sampling, Task
from hmi.jobs.fields import (
    Chat,
    LineRequest,
    check_common,
    invalid,
    parse_inputs,
    parse_model,
    parse_text,
    require_known,
    unsupported,
)
from hmi.jobs.lines import Limits

__all__ = ["CHAT", "COMPLETIONS", "DEFAULT_TOKENS", "MAX_CHOICES", "NO_LIMIT", "parse_chat", "parse_completion"]

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"

DEFAULT_TOKENS = 16  # OpenAI's, for completions; chats go on to the end of the context
NO_LIMIT = 2**31 - 1  # tokens: more than any context
MAX_CHOICES = 128
_MAX_STOPS = 4
_MAX_STOP = 256  # characters
_MAX_TOP_K = 2**21
_MAX_MESSAGES = 2048
# Log-probabilities of one line, whose answer is one piece of JSON with some 60 bytes for each of them.
_MAX_CHANCES = 4_000_000
_USUAL_CONTEXT = 4096  # tokens that a text is taken to have at most where its end is left to the model
_TOKEN_CHARACTERS = 4
_ROLES = ("system", "developer", "user", "assistant")
# What OpenAI's bodies may have and nothing here makes use of: the value that changes nothing, or several, and why it
# must be that.
_UNUSED: dict[str, tuple[object, str]] = {
    "presence_penalty": (0, "tokens are not penalised"),
    "frequency_penalty": (0, "tokens are not penalised"),
    "logit_bias": ({}, "logits are taken as they are"),
    "stream_options": (None, "answers are not streamed"),
}
_UNUSED_IN_COMPLETIONS: dict[str, tuple[object, str]] = {"suffix": ("", "texts are continued, not filled in")}
_UNUSED_IN_CHATS: dict[str, tuple[object, str]] = {
    "tools": ([], "the model calls none"),
    "tool_choice": (("none", "auto"), "the model calls none"),
    "functions": ([], "the model calls none"),
    "function_call": (("none", "auto"), "the model calls none"),
    "parallel_tool_calls": (True, "the model calls none"),
    "response_format": ({"type": "text"}, "answers are free text"),
    "modalities": (["text"], "answers are text"),
    "audio": (None, "answers are text"),
    "reasoning_effort": ("none", "the model answers at once"),
    "verbosity": ("medium", "answers are as long as the model makes them"),
    "service_tier": (("auto", "default"), "all lines of a tenant are served alike"),
    "store": (False, "answers are kept in the batch's output file alone"),
    "metadata": ({}, "a batch has metadata, its lines have none"),
}
_COMMON = {
    *("model", "max_tokens", "temperature", "top_p", "top_k", "n", "stop", "seed", "stream", "user", "ignore_eos"),
    *("logprobs", *_UNUSED),
}
_COMPLETION = frozenset({*_COMMON, "prompt", "echo", "best_of", *_UNUSED_IN_COMPLETIONS})
# Names by which a caller knows its own users and prompts: like `user`, they change no answer.
_NAMES = ("safety_identifier", "prompt_cache_key")
_CHAT = frozenset({*_COMMON, "messages", "max_completion_tokens", "top_logprobs", *_UNUSED_IN_CHATS, *_NAMES})


def parse_completion(body: Mapping[str, Any], limits: Limits) -> LineRequest:
    """Raises `InvalidInput` with `param` naming the field in the caller's terms."""
    require_known(COMPLETIONS, body, _COMPLETION)
    _check_unused(body, _UNUSED | _UNUSED_IN_COMPLETIONS)
    if body.get("best_of") not in (None, body.get("n") or 1):
        raise unsupported("best_of", "all choices are returned")
    echo = _flag(body, "echo")
    params = GenerationParams(
        max_tokens=_whole(body, "max_tokens", 0 if echo else 1, NO_LIMIT, DEFAULT_TOKENS),
        sampling=_sampling(body),
        stop=_stops(body),
        logprobs=None if body.get("logprobs") is None else _whole(body, "logprobs", 0, MAX_LOGPROBS, 0),
        echo=echo,
        ignore_eos=_flag(body, "ignore_eos"),
    )
    inputs = parse_inputs(body, "prompt", limits)
    choices = _whole(body, "n", 1, MAX_CHOICES, 1)
    if choices > 1 and len(inputs) * choices > limits.max_inputs:
        raise invalid("n", f"of {len(inputs)} prompts gives more than {limits.max_inputs} texts")
    _check_chances(params, inputs, choices, "logprobs")
    return LineRequest(parse_model(body), inputs, Task.GENERATE, params=params, choices=choices, seed=_seed(body))


def parse_chat(body: Mapping[str, Any]) -> LineRequest:
    """Likewise."""
    require_known(CHAT, body, _CHAT)
    _check_unused(body, _UNUSED | _UNUSED_IN_CHATS)
    name = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    told = _flag(body, "logprobs")
    if body.get("top_logprobs") is not None and not told:
        raise invalid("top_logprobs", "needs logprobs to be true")
    params = GenerationParams(
        max_tokens=_whole(body, name, 1, NO_LIMIT, NO_LIMIT),
        sampling=_sampling(body),
        stop=_stops(body),
        logprobs=_whole(body, "top_logprobs", 0, MAX_LOGPROBS, 0) if told else None,
        ignore_eos=_flag(body, "ignore_eos"),
    )
    inputs, choices = (Chat(_messages(body)),), _whole(body, "n", 1, MAX_CHOICES, 1)
    _check_chances(params, inputs, choices, "top_logprobs")
    return LineRequest(parse_model(body), inputs, Task.GENERATE, params=params, choices=choices, seed=_seed(body))


def _check_chances(
    params: GenerationParams, inputs: Sequence[str | tuple[int, ...] | Chat], choices: int, param: str
) -> None:
    """Raises `InvalidInput` for more log-probabilities than one answer should hold."""
    if params.logprobs is None:
        return
    tokens = len(inputs) * min(params.max_tokens, _USUAL_CONTEXT)
    if params.echo:
        tokens += sum(len(each) // _TOKEN_CHARACTERS for each in inputs if isinstance(each, str))
        tokens += sum(len(each) for each in inputs if isinstance(each, tuple))
    chances = tokens * choices * (1 + params.logprobs)
    if chances > _MAX_CHANCES:
        raise invalid(
            param, f"asks for up to {chances} log-probabilities in one answer; at most {_MAX_CHANCES} are told"
        )


def _check_unused(body: Mapping[str, Any], unused: Mapping[str, tuple[object, str]]) -> None:
    check_common(body)
    for name, (harmless, reason) in unused.items():
        if body.get(name) is not None and body[name] not in (harmless if isinstance(harmless, tuple) else (harmless,)):
            raise unsupported(name, reason)


def _sampling(body: Mapping[str, Any]) -> Sampling:
    return Sampling(
        temperature=_number(body, "temperature", 0, 2, 1.0),
        top_p=_number(body, "top_p", 0, 1, 1.0) or math.ulp(1.0),  # 0 leaves the most likely token
        top_k=0 if body.get("top_k") == -1 else _whole(body, "top_k", 0, _MAX_TOP_K, 0),
    )


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    given = body.get("stop")
    if given is None:
        return ()
    stops = given if isinstance(given, list) else [given]
    if len(stops) > _MAX_STOPS:
        raise invalid("stop", f"has {len(stops)} strings; at most {_MAX_STOPS} are allowed")
    parsed = tuple(parse_text(each, "stop") for each in stops)
    if any(len(each) > _MAX_STOP for each in parsed):
        raise invalid("stop", f"must be of {_MAX_STOP} characters at most")
    return parsed


def _messages(body: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    given = body.get("messages")
    if given is None:
        raise InvalidInput("messages is missing", code="missing_required_parameter", param="messages")
    if not isinstance(given, list) or not 1 <= len(given) <= _MAX_MESSAGES:
        raise invalid("messages", f"must be a list of 1 to {_MAX_MESSAGES} messages")
    messages = tuple(_message(each, f"messages[{number}]") for number, each in enumerate(given))
    if not any(content for _, content in messages):
        raise invalid("messages", "must not all be empty")
    return messages


def _message(given: object, param: str) -> tuple[str, str]:
    if not isinstance(given, dict):
        raise invalid(param, "must be an object")
    # What a client library makes of an answer, to be sent back, has all fields of a message, of which most are null.
    if {name for name, value in given.items() if value is not None} - {"role", "content", "name", "refusal"}:
        raise unsupported(param, "messages have a role and a content, and no tools are called")
    role, content = given.get("role"), given.get("content")
    if role not in _ROLES:
        raise invalid(f"{param}.role", f"must be one of {', '.join(_ROLES)}")
    if isinstance(content, list) and content:
        content = "".join(_part(each, f"{param}.content[{number}]") for number, each in enumerate(content))
    return ("system" if role == "developer" else str(role)), parse_text(content, f"{param}.content", may_be_empty=True)


def _part(given: object, param: str) -> str:
    if not isinstance(given, dict) or given.get("type") != "text":
        raise unsupported(param, "messages are text")
    return parse_text(given.get("text"), f"{param}.text", may_be_empty=True)


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if not isinstance(value, bool | None):
        raise invalid(name, "must be true or false")
    return bool(value)


def _whole(body: Mapping[str, Any], name: str, least: int, most: int, usual: int) -> int:
    value = body.get(name)
    if value is None:
        return usual
    if type(value) is not int or not least <= value <= most:
        raise invalid(name, f"must be a whole number from {least} to {most}")
    return value


def _seed(body: Mapping[str, Any]) -> int | None:
    return None if body.get("seed") is None else _whole(body, "seed", -(2**63), 2**63 - 1, 0)


def _number(body: Mapping[str, Any], name: str, least: float, most: float, usual: float) -> float:
    value = body.get(name)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise invalid(name, f"must be a number from {least} to {most}")
    return float(value)
