"""Lines of a batch's output and error files, and the response bodies in them.

They depend on the batch and the line alone: a shard that runs twice writes the same bytes.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from hmi.errors import ContextTooLong, HmiError, InvalidInput
from hmi.items import Classification, Embedding, Item, ModelRef, Outcome, Tagging, Task
from hmi.jobs.choices import generated_body
from hmi.jobs.status import error_detail
from hmi.models.text import OUTSIDE, bio_entities, is_bio
from hmi.schemas import Chat, EmbeddingRequest, GenerationRequest, InferenceRequest

_INPUT_STEP = 0xD1B54A32D192ED03  # odd, and far from the other
_CHOICE_STEP = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd
_NAMESPACE = uuid.UUID("7d5b3c1e-4f0a-5c62-9a55-1d1f0c6a8e21")


class NotRun(StrEnum):
    """Why a line of a finished batch was not run; the values are OpenAI's codes."""

    EXPIRED = "batch_expired"
    CANCELLED = "batch_cancelled"


_NOT_RUN_MESSAGE = {
    NotRun.EXPIRED: "This request could not be executed before the completion window expired.",
    NotRun.CANCELLED: "This request was not executed because the batch was cancelled.",
}


@dataclass(frozen=True, slots=True)
class LineIds:
    """The ids of one line's answer, the same on every run."""

    line: str  # `batch_req_...`, in the output or error file
    request: str  # `req_...`, as the API's `x-request-id`
    answer: str  # suffix of an id inside the body (`classify-...`)


def line_ids(batch_id: str, line_no: int) -> LineIds:
    """`line_no` is 0-based within the batch."""
    name = uuid.uuid5(_NAMESPACE, f"{batch_id}:{line_no}").hex
    return LineIds(line=f"batch_req_{name}", request=f"req_{name}", answer=name)


def items_of(request: InferenceRequest, model: ModelRef, ids: LineIds, requester: int | None = 0) -> list[Item]:
    """The sequences of a request for the engine: choice after choice of each input. `requester` is as in `Item`."""
    items, own = [], request.params
    given = request.seed if isinstance(request, GenerationRequest) else None
    for place, each in enumerate(request.inputs):
        # Without a seed of the request's own, equal prompts get different texts.
        seed = int(ids.answer[:15], 16) + place * _INPUT_STEP if given is None else given
        chat = each.messages if isinstance(each, Chat) else None
        text = each if isinstance(each, str) else None
        tokens = each if isinstance(each, tuple) else None
        for choice in range(request.choices):
            params = own
            if own is not None:
                # The first choice has the request's own seed; the others are far from any neighbouring one.
                sampling = dataclasses.replace(own.sampling, seed=(seed + choice * _CHOICE_STEP) % 2**64)
                params = dataclasses.replace(own, sampling=sampling)
            items.append(Item(model, request.task, text, tokens, request.truncate_to, params, chat, requester))
    return items


def response_body(
    request: InferenceRequest, model_name: str, outcomes: Sequence[Outcome], created: int, ids: LineIds
) -> dict[str, Any]:
    """The body of the answer to one request, from an outcome for each choice of each input, in their order.

    `created` is in Unix seconds: in a batch the batch's own, so that reruns agree. Raises the first outcome's error: a
    request is answered whole or not at all.
    """
    if len(outcomes) != request.sequences:
        raise HmiError(f"{len(outcomes)} outcomes for {request.sequences} sequences")
    for outcome in outcomes:
        if outcome.error is not None:
            raise _in_terms_of(request, outcome.error)
    if request.task is Task.GENERATE:
        return generated_body(request, model_name, outcomes, created, ids.answer)
    tokens = sum(outcome.tokens for outcome in outcomes)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    if isinstance(request, EmbeddingRequest):
        as_base64 = request.encoding_format == "base64"
        vectors = [_embedding(index, outcome, as_base64=as_base64) for index, outcome in enumerate(outcomes)]
        return {"object": "list", "data": vectors, "model": model_name, "usage": usage}
    data = [_classified(index, outcome) for index, outcome in enumerate(outcomes)]
    return {
        "id": f"classify-{ids.answer}",
        "object": "list",
        "created": created,
        "model": model_name,
        "data": data,
        "usage": {**usage, "completion_tokens": 0},
    }


def _in_terms_of(request: InferenceRequest, error: HmiError) -> HmiError:
    """The engine's error with the field of the request that it is about, and advice that the endpoint accepts."""
    if not isinstance(error, InvalidInput) or error.param not in {"input", "prompt"}:
        return error
    advice = f"; {request.length_advice}" if isinstance(error, ContextTooLong) else ""
    return type(error)(error.message + advice, code=error.code, param=request.input_field)


def _classified(index: int, outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    if isinstance(result, Tagging):
        return {"index": index, "num_classes": len(result.labels), **_tagged(result)}
    if not isinstance(result, Classification):
        raise HmiError("the engine gave no classification for a classification request")
    if not all(map(math.isfinite, result.probs)):
        raise HmiError("the model gave a probability that is not a finite number", code="not_finite")
    return {"index": index, "label": result.label, "probs": list(result.probs), "num_classes": len(result.probs)}


def _tagged(result: Tagging) -> dict[str, Any]:
    """The words that have a label, and where labels are in BIO form the named parts that they spell.

    A part is as sure as its least sure word.
    """
    tags = result.tags
    words = [_place(tag.start, tag.end, tag.label, tag.score) for tag in tags if tag.label != OUTSIDE]
    if not is_bio(result.labels):
        return {"tokens": words}
    parts = [
        _place(tags[chunk.first].start, tags[chunk.last].end, chunk.name, min(tag.score for tag in covered))
        for chunk in bio_entities([tag.label for tag in tags])
        for covered in [tags[chunk.first : chunk.last + 1]]
    ]
    return {"tokens": words, "entities": parts}


def _place(start: int, end: int, label: str, score: float) -> dict[str, Any]:
    return {"start": start, "end": end, "label": label, "score": score}


def _embedding(index: int, outcome: Outcome, *, as_base64: bool) -> dict[str, Any]:
    result = outcome.result
    if not isinstance(result, Embedding):
        raise HmiError("the engine gave no embedding for an embedding request")
    vector = np.asarray(result.vector, dtype="<f4")
    if not np.isfinite(vector).all():
        raise HmiError("the model gave an embedding that is not finite", code="not_finite")
    if as_base64:
        embedding: str | list[float] = base64.b64encode(vector.tobytes()).decode("ascii")
    else:
        # Nine digits identify every float32; Python would write the seventeen of a double.
        embedding = [float(f"{value:.9g}") for value in vector.tolist()]
    return {"object": "embedding", "index": index, "embedding": embedding}


def output_line(batch_id: str, line_no: int, custom_id: str, body: dict[str, Any]) -> bytes:
    """A line of the output file, with its line feed."""
    return _response_line(batch_id, line_no, custom_id, 200, body)


def error_line(batch_id: str, line_no: int, custom_id: str, status: int, error: HmiError) -> bytes:
    """A line of the error file for a request that was answered with an error."""
    return _response_line(batch_id, line_no, custom_id, status, error_detail(error, status).envelope())


def not_run_line(batch_id: str, line_no: int, custom_id: str, reason: NotRun) -> bytes:
    """A line of the error file for a request that was not run."""
    ids = line_ids(batch_id, line_no)
    error = {"code": reason.value, "message": _NOT_RUN_MESSAGE[reason]}
    return _json_line({"id": ids.line, "custom_id": custom_id, "response": None, "error": error})


def _response_line(batch_id: str, line_no: int, custom_id: str, status: int, body: dict[str, Any]) -> bytes:
    ids = line_ids(batch_id, line_no)
    response = {"status_code": status, "request_id": ids.request, "body": body}
    return _json_line({"id": ids.line, "custom_id": custom_id, "response": response, "error": None})


def _json_line(value: dict[str, Any]) -> bytes:
    # ASCII only: a raw U+2028 inside a string would be a line break to many readers of JSON lines.
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
