from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from hmi.errors import ContextTooLong, HmiError
from hmi.items import Classification, Embedding, Outcome, Tag, Tagging, Task
from hmi.jobs import NotRun, error_line, http_status, line_ids, output_line, response_body
from hmi.jobs.answers import not_run_line
from hmi.schemas import InferenceRequest, Limits, parse_body

IDS = line_ids("batch_1", 7)
VECTOR = np.array([0.1, -0.2, 1e-8], np.float32)


def classified(*probs: float) -> Outcome:
    labels = tuple(f"L{index}" for index in range(len(probs)))
    return Outcome(Classification(labels, probs), None, tokens=5)


def request(task: Task, inputs: int = 1, **fields: str) -> InferenceRequest:
    url = "/v1/embeddings" if task is Task.EMBED else "/v1/classify"
    return parse_body(url, {"model": "acme/m", "input": ["text"] * inputs, **fields}, Limits())


def test_a_classification_has_the_shape_of_vllm() -> None:
    body = response_body(request(Task.CLASSIFY, 2), "acme/m", [classified(0.2, 0.8), classified(0.5, 0.3, 0.2)], 9, IDS)
    assert body == {
        "id": f"classify-{IDS.answer}",
        "object": "list",
        "created": 9,
        "model": "acme/m",
        "data": [
            {"index": 0, "label": "L1", "probs": [0.2, 0.8], "num_classes": 2},
            {"index": 1, "label": "L0", "probs": [0.5, 0.3, 0.2], "num_classes": 3},
        ],
        "usage": {"prompt_tokens": 10, "total_tokens": 10, "completion_tokens": 0},
    }


def test_labelled_words_are_returned_and_joined_when_labels_are_bio() -> None:
    tags = (Tag(0, 3, "B-PER", 0.9), Tag(4, 12, "I-PER", 0.75), Tag(13, 15, "O", 0.99), Tag(16, 22, "I-LOC", 0.5))
    outcome = Outcome(Tagging(("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), tags), None, tokens=6)
    nouns = Outcome(Tagging(("O", "NOUN"), (Tag(0, 3, "NOUN", 0.9), Tag(4, 5, "O", 1.0))), None, tokens=4)
    body = response_body(request(Task.CLASSIFY, 2), "acme/m", [outcome, nouns], 9, IDS)
    assert body["data"] == [
        {
            "index": 0,
            "num_classes": 5,
            "tokens": [
                {"start": 0, "end": 3, "label": "B-PER", "score": 0.9},
                {"start": 4, "end": 12, "label": "I-PER", "score": 0.75},
                {"start": 16, "end": 22, "label": "I-LOC", "score": 0.5},
            ],
            "entities": [
                {"start": 0, "end": 12, "label": "PER", "score": 0.75},
                {"start": 16, "end": 22, "label": "LOC", "score": 0.5},
            ],
        },
        {"index": 1, "num_classes": 2, "tokens": [{"start": 0, "end": 3, "label": "NOUN", "score": 0.9}]},
    ]
    assert body["usage"] == {"prompt_tokens": 10, "total_tokens": 10, "completion_tokens": 0}


def test_an_embedding_survives_both_encodings_exactly() -> None:
    outcome = Outcome(Embedding(VECTOR), None, tokens=3)
    floats = response_body(request(Task.EMBED), "acme/m", [outcome], 9, IDS)
    packed = response_body(request(Task.EMBED, encoding_format="base64"), "acme/m", [outcome], 9, IDS)
    as_float = np.array(json.loads(json.dumps(floats))["data"][0]["embedding"], np.float32)
    as_base64 = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
    np.testing.assert_array_equal(as_float, VECTOR)
    np.testing.assert_array_equal(as_base64, VECTOR)
    assert floats["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_a_request_fails_whole_when_one_input_failed() -> None:
    failed = Outcome(None, ContextTooLong("too long"), tokens=0)
    with pytest.raises(ContextTooLong):
        response_body(request(Task.CLASSIFY, 2), "acme/m", [classified(1.0), failed], 9, IDS)


@pytest.mark.parametrize(
    ("url", "body", "param", "advice"),
    [
        ("/v1/embeddings", {"input": "x"}, "input", "shorten it or set truncate_prompt_tokens"),
        ("/v1/completions", {"prompt": "x"}, "prompt", "shorten it"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, "messages", "shorten it"),
    ],
)
def test_an_input_that_is_too_long_is_named_as_the_endpoint_names_it_with_advice_that_it_accepts(
    url: str, body: dict[str, object], param: str, advice: str
) -> None:
    parsed = parse_body(url, {"model": "acme/m", **body}, Limits())
    failed = Outcome(None, ContextTooLong("the input has 9031 tokens, the model takes 8192", param="input"), tokens=0)
    with pytest.raises(ContextTooLong) as caught:
        response_body(parsed, "acme/m", [failed], 9, IDS)
    assert caught.value.param == param
    assert caught.value.message == f"the input has 9031 tokens, the model takes 8192; {advice}"


@pytest.mark.parametrize(
    "outcome",
    [classified(float("nan"), 0.5), Outcome(Embedding(VECTOR), None, 1), Outcome(None, None, 1)],
)
def test_no_answer_is_written_when_the_result_is_not_one(outcome: Outcome) -> None:
    with pytest.raises(HmiError):
        response_body(request(Task.CLASSIFY), "acme/m", [outcome], 9, IDS)
    with pytest.raises(HmiError):
        bad = Outcome(Embedding(np.array([np.inf], np.float32)), None, 1)
        response_body(request(Task.EMBED), "acme/m", [bad], 9, IDS)


def test_outcomes_are_counted() -> None:
    with pytest.raises(HmiError, match="0 outcomes"):
        response_body(request(Task.CLASSIFY), "acme/m", [], 9, IDS)


def test_lines_have_the_shapes_of_openai() -> None:
    error = ContextTooLong("too long", param="input")
    ok, bad, never = (
        json.loads(raw)
        for raw in (
            output_line("batch_1", 7, "é", {"x": 1}),
            error_line("batch_1", 7, "é", http_status(error), error),
            not_run_line("batch_1", 7, "é", NotRun.EXPIRED),
        )
    )
    assert ok["id"] == bad["id"] == never["id"] == IDS.line
    assert ok["custom_id"] == bad["custom_id"] == never["custom_id"] == "é"
    assert (ok["error"], bad["error"], never["response"]) == (None, None, None)
    assert ok["response"] == {"status_code": 200, "request_id": IDS.request, "body": {"x": 1}}
    assert bad["response"]["status_code"] == 400
    assert bad["response"]["body"] == {
        "error": {
            "message": "too long",
            "type": "invalid_request_error",
            "param": "input",
            "code": "context_length_exceeded",
        }
    }
    assert never["error"]["code"] == "batch_expired"


def test_a_line_has_the_same_ids_on_every_run_and_its_own() -> None:
    assert line_ids("batch_1", 7) == IDS
    assert len({line_ids(batch, line).line for batch in ("a", "b") for line in range(3)}) == 6


def test_a_line_is_one_line_whatever_the_custom_id_holds() -> None:
    assert len(output_line("b", 0, "a\u2028b\u0085c", {}).decode().splitlines()) == 1
