"""The bodies of answers with generated text, in OpenAI's shapes."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from hmi.errors import HmiError
from hmi.items import Generation, Outcome, TokenBytes, TokenLogprobs
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
        "choices": [shape(index, result) for index, result in enumerate(results)],
        "usage": {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made},
    }


def _generation(outcome: Outcome) -> Generation:
    if not isinstance(outcome.result, Generation):
        raise HmiError("the engine gave no text for a request that is to be continued")
    return outcome.result


def _text_choice(index: int, result: Generation) -> dict[str, Any]:
    return {
        "index": index,
        "text": result.text,
        "logprobs": None if result.chances is None else _text_logprobs(result.chances, result.text),
        "finish_reason": result.finish.value,
    }


def _text_logprobs(chances: TokenLogprobs, text: str) -> dict[str, Any]:
    """OpenAI's older form: parallel lists."""
    ids, logprobs = chances.ids.tolist(), chances.logprobs.tolist()
    name = cache(lambda token: _name(chances.pieces.of(token), "bytes:"))

    def best(place: int) -> dict[str, float] | None:
        if math.isnan(logprobs[place]):
            return None
        found: dict[str, float] = {}
        # And the token itself, be it one of them or not. Two may have one text; the likelier one is told.
        for token, logprob in [*_likeliest(chances, place), (ids[place], logprobs[place])]:
            found.setdefault(name(token), _finite(logprob))
        return found

    return {
        "tokens": [name(token) for token in ids],
        "token_logprobs": [None if math.isnan(each) else _finite(each) for each in logprobs],
        "top_logprobs": [best(place) for place in range(len(ids))] if chances.best_ids.shape[1] else None,
        "text_offset": _offsets(ids, chances.pieces, text),
    }


def _offsets(ids: Sequence[int], pieces: TokenBytes, text: str) -> list[int]:
    """Where tokens begin in the text, in characters; one that begins within a character, at that."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offsets, end = [], 0
    for token in ids:
        offsets.append(end)
        if token not in pieces.special:
            found = decoder.decode(pieces.of(token))
            # What begins a prompt may be a word with a space, which the prompt lacks.
            end += len(found.removeprefix(" ") if end == 0 and not text.startswith(" ") else found)
    return offsets


def _message_choice(index: int, result: Generation) -> dict[str, Any]:
    told = None if result.chances is None else {"content": _message_logprobs(result.chances), "refusal": None}
    return {
        "index": index,
        "message": {"role": "assistant", "content": result.text, "refusal": None},
        "logprobs": told,
        "finish_reason": result.finish.value,
    }


def _message_logprobs(chances: TokenLogprobs) -> list[dict[str, Any]]:
    pieces = chances.pieces

    @cache
    def named(token: int) -> dict[str, Any]:
        piece = pieces.of(token)
        return {"token": _name(piece), "bytes": None if token in pieces.special else list(piece)}

    def one(token: int, logprob: float) -> dict[str, Any]:
        return {**named(token), "logprob": _finite(logprob)}

    return [
        {**one(token, logprob), "top_logprobs": [one(*each) for each in _likeliest(chances, place)]}
        for place, (token, logprob) in enumerate(zip(chances.ids.tolist(), chances.logprobs.tolist(), strict=True))
    ]


def _likeliest(chances: TokenLogprobs, place: int) -> Iterable[tuple[int, float]]:
    return zip(chances.best_ids[place].tolist(), chances.best_logprobs[place].tolist(), strict=True)


def _name(piece: bytes, mark: str = "") -> str:
    """Its text; of a part of a character its bytes, as OpenAI writes them."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return mark + "".join(f"\\x{byte:02x}" for byte in piece)


def _finite(value: float) -> float:
    """What no token can be has a probability of 0, and JSON no infinity."""
    return value if math.isfinite(value) else -9999.0
