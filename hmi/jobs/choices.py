"""The bodies of answers with generated text, in OpenAI's shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hmi.engine.request import Alternative, Generation, Outcome, TokenChance
from hmi.errors import HmiError
from hmi.jobs.requests import Chat, LineRequest

__all__ = ["generated_body"]


def generated_body(
    request: LineRequest, model_name: str, outcomes: Sequence[Outcome], created: int, answer: str
) -> dict[str, Any]:
    """
    Args:
        outcomes: Without errors, choice after choice of each input.
        answer: By which the answer's id is made.
    """
    chats = isinstance(request.inputs[0], Chat)
    results = [_generation(outcome) for outcome in outcomes]
    read = sum(outcome.tokens for outcome in outcomes[:: request.choices])  # a prompt counts once, whatever its choices
    made = sum(len(result.tokens) for result in results)
    shape = _message_choice if chats else _text_choice
    return {
        "id": f"chatcmpl-{answer}" if chats else f"cmpl-{answer}",
        "object": "chat.completion" if chats else "text_completion",
        "created": created,
        "model": model_name,
        "choices": [shape(index, result, request) for index, result in enumerate(results)],
        "usage": {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made},
    }


def _generation(outcome: Outcome) -> Generation:
    if not isinstance(outcome.result, Generation):
        raise HmiError("the engine gave no text for a request that is to be continued")
    return outcome.result


def _text_choice(index: int, result: Generation, request: LineRequest) -> dict[str, Any]:
    told = request.wish is not None and request.wish.logprobs is not None
    return {
        "index": index,
        "text": result.text,
        "logprobs": _text_logprobs(result, request) if told else None,
        "finish_reason": result.finish.value,
    }


def _text_logprobs(result: Generation, request: LineRequest) -> dict[str, Any]:
    """OpenAI's older form: parallel lists. Offsets count the characters of tokens' own texts."""
    asked = request.wish.logprobs if request.wish else None
    chances = [*result.prompt, *result.chances]
    texts = ["" if each is None else each.text for each in chances]
    offsets = [0]
    for text in texts[:-1]:
        offsets.append(offsets[-1] + len(text))
    return {
        "tokens": texts,
        "token_logprobs": [None if each is None else _finite(each.logprob) for each in chances],
        "top_logprobs": [None if each is None else _best(each) for each in chances] if asked else None,
        "text_offset": offsets[: len(texts)],
    }


def _best(chance: TokenChance) -> dict[str, float]:
    # Two tokens may have one text; the likelier one is told.
    found: dict[str, float] = {}
    for each in chance.alternatives:
        found.setdefault(each.text, _finite(each.logprob))
    return found


def _message_choice(index: int, result: Generation, request: LineRequest) -> dict[str, Any]:
    told = request.wish is not None and request.wish.logprobs is not None
    content = [
        {**_token(each), "top_logprobs": [_token(other) for other in each.alternatives]} for each in result.chances
    ]
    return {
        "index": index,
        "message": {"role": "assistant", "content": result.text, "refusal": None},
        "logprobs": {"content": content, "refusal": None} if told else None,
        "finish_reason": result.finish.value,
    }


def _token(each: Alternative) -> dict[str, Any]:
    return {"token": each.text, "logprob": _finite(each.logprob), "bytes": list(each.text.encode("utf-8", "replace"))}


def _finite(value: float) -> float:
    """What no token can be has a probability of 0, and JSON no infinity."""
    return value if math.isfinite(value) else -9999.0
