"""The bodies of answers with generated text, in OpenAI's shapes."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from hmi.errors import HmiError
from hmi.items import Generation, Outcome, TokenBytes, TokenLogprobs
from hmi.schemas import ChatRequest, InferenceRequest


def generated_body(
    request: InferenceRequest, model_name: str, outcomes: Sequence[Outcome], created: int, answer: str
) -> dict[str, Any]:
    """The body of a completion or a chat completion, from the outcomes without errors of each input's choices.

    `answer` is the suffix of the answer's id.
    """
    chats = isinstance(request, ChatRequest)
    results = [_generation(outcome) for outcome in outcomes]
    read = sum(outcome.tokens for outcome in outcomes[:: request.choices])  # a prompt counts once for all its choices
    made = sum(len(result.tokens) for result in results)
    shape = _message_choice if chats else _text_choice
    return {
        "id": f"chatcmpl-{answer}" if chats else f"cmpl-{answer}",
        "object": "chat.completion" if chats else "text_completion",
        "created": created,
        "model": model_name,
        "choices": [shape(index, result) for index, result in enumerate(results)],
        "usage": {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made},
    }


def _generation(outcome: Outcome) -> Generation:
    if not isinstance(outcome.result, Generation):
        raise HmiError("the engine gave no text for a generation request")
    return outcome.result


def _text_choice(index: int, result: Generation) -> dict[str, Any]:
    return {
        "index": index,
        "text": result.text,
        "logprobs": None if result.logprobs is None else _text_logprobs(result.logprobs, result.text),
        "finish_reason": result.finish.value,
    }


def _text_logprobs(logprobs: TokenLogprobs, text: str) -> dict[str, Any]:
    """OpenAI's older form: parallel lists."""
    ids, own = logprobs.ids.tolist(), logprobs.logprobs.tolist()
    name = cache(lambda token: _name(logprobs.token_bytes.of(token), "bytes:"))

    def best(place: int) -> dict[str, float] | None:
        if math.isnan(own[place]):
            return None
        found: dict[str, float] = {}
        # The token itself is always there. Of two tokens with one text, the likelier one is kept.
        for token, logprob in [*_likeliest(logprobs, place), (ids[place], own[place])]:
            found.setdefault(name(token), _finite(logprob))
        return found

    return {
        "tokens": [name(token) for token in ids],
        "token_logprobs": [None if math.isnan(each) else _finite(each) for each in own],
        "top_logprobs": [best(place) for place in range(len(ids))] if logprobs.best_ids.shape[1] else None,
        "text_offset": _offsets(ids, logprobs.token_bytes, text),
    }


def _offsets(ids: Sequence[int], token_bytes: TokenBytes, text: str) -> list[int]:
    """Where tokens begin in the text, in characters; a token inside a character begins at that character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offsets, end = [], 0
    for token in ids:
        offsets.append(end)
        if token not in token_bytes.special:
            found = decoder.decode(token_bytes.of(token))
            # A prompt's first token may have a space that the prompt lacks.
            end += len(found.removeprefix(" ") if end == 0 and not text.startswith(" ") else found)
    return offsets


def _message_choice(index: int, result: Generation) -> dict[str, Any]:
    logprobs = None if result.logprobs is None else {"content": _message_logprobs(result.logprobs), "refusal": None}
    return {
        "index": index,
        "message": {"role": "assistant", "content": result.text, "refusal": None},
        "logprobs": logprobs,
        "finish_reason": result.finish.value,
    }


def _message_logprobs(logprobs: TokenLogprobs) -> list[dict[str, Any]]:
    token_bytes = logprobs.token_bytes

    @cache
    def named(token: int) -> dict[str, Any]:
        piece = token_bytes.of(token)
        return {"token": _name(piece), "bytes": None if token in token_bytes.special else list(piece)}

    def one(token: int, logprob: float) -> dict[str, Any]:
        return {**named(token), "logprob": _finite(logprob)}

    return [
        {**one(token, logprob), "top_logprobs": [one(*each) for each in _likeliest(logprobs, place)]}
        for place, (token, logprob) in enumerate(zip(logprobs.ids.tolist(), logprobs.logprobs.tolist(), strict=True))
    ]


def _likeliest(logprobs: TokenLogprobs, place: int) -> Iterable[tuple[int, float]]:
    return zip(logprobs.best_ids[place].tolist(), logprobs.best_logprobs[place].tolist(), strict=True)


def _name(piece: bytes, mark: str = "") -> str:
    """A token's text; for a part of a character its bytes, as OpenAI writes them."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return mark + "".join(f"\\x{byte:02x}" for byte in piece)


def _finite(value: float) -> float:
    """A probability of 0 has the log-probability -inf, which JSON cannot write."""
    return value if math.isfinite(value) else -9999.0
