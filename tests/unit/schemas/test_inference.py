from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.errors import InvalidInput
from hmi.items import Task
from hmi.schemas import ENDPOINTS, TRUNCATE_TO_MODEL, EmbeddingRequest, Limits, parse_body

LIMITS = Limits(max_inputs=3)
CLASSIFY, EMBED = "/v1/classify", "/v1/embeddings"


def body(**changes: object) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": "acme/sentiment", "input": "good"} | changes
    return {name: value for name, value in fields.items() if value is not ...}


@pytest.mark.parametrize(
    ("given_input", "inputs"),
    [
        ("good", ("good",)),
        (["good", "bad"], ("good", "bad")),
        ([101, 7, 102], ((101, 7, 102),)),
        ([[101, 102], [101, 7, 102]], ((101, 102), (101, 7, 102))),
    ],
)
def test_inputs_are_read_in_every_shape_of_openai(given_input: object, inputs: object) -> None:
    assert parse_body(EMBED, body(input=given_input), LIMITS).inputs == inputs


def test_defaults_are_those_of_a_batch_file() -> None:
    request = parse_body(EMBED, body(), LIMITS)
    assert isinstance(request, EmbeddingRequest)
    assert (request.task, request.truncate_to, request.encoding_format) == (Task.EMBED, None, "float")


def test_options_are_read_when_they_are_given() -> None:
    request = parse_body(CLASSIFY, body(truncate_prompt_tokens=16, user="u", use_activation=True, stream=False), LIMITS)
    assert (request.task, request.truncate_to) == (Task.CLASSIFY, 16)
    assert parse_body(CLASSIFY, body(truncate_prompt_tokens=-1), LIMITS).truncate_to == TRUNCATE_TO_MODEL
    packed = parse_body(EMBED, body(encoding_format="base64"), LIMITS)
    assert isinstance(packed, EmbeddingRequest)
    assert packed.encoding_format == "base64"


@pytest.mark.parametrize(
    ("url", "changes", "code", "param"),
    [
        ("/v1/responses", {}, "invalid_value", "url"),
        (CLASSIFY, {"model": ...}, "missing_required_parameter", "model"),
        (CLASSIFY, {"model": None}, "missing_required_parameter", "model"),
        (CLASSIFY, {"model": 7}, "invalid_value", "model"),
        (CLASSIFY, {"model": "\ud800"}, "invalid_value", "model"),
        (CLASSIFY, {"input": ...}, "missing_required_parameter", "input"),
        (CLASSIFY, {"input": 7}, "invalid_value", "input"),
        (CLASSIFY, {"input": {}}, "invalid_value", "input"),
        (CLASSIFY, {"input": ""}, "invalid_value", "input"),
        (CLASSIFY, {"input": "\udc00"}, "invalid_value", "input"),
        (CLASSIFY, {"input": []}, "invalid_value", "input"),
        (CLASSIFY, {"input": ["a", "b", "c", "d"]}, "invalid_value", "input"),
        (CLASSIFY, {"input": ["a", ""]}, "invalid_value", "input[1]"),
        (CLASSIFY, {"input": ["a", 1]}, "invalid_value", "input[1]"),
        (CLASSIFY, {"input": [[1], "a"]}, "invalid_value", "input[1]"),
        (CLASSIFY, {"input": [[1], []]}, "invalid_value", "input[1]"),
        (CLASSIFY, {"input": [1, True]}, "invalid_value", "input"),
        (CLASSIFY, {"input": [1, -1]}, "invalid_value", "input"),
        (CLASSIFY, {"input": [1, 2**21]}, "invalid_value", "input"),
        (CLASSIFY, {"input": [1, 2.0]}, "invalid_value", "input"),
        (CLASSIFY, {"truncate_prompt_tokens": 0}, "invalid_value", "truncate_prompt_tokens"),
        (CLASSIFY, {"truncate_prompt_tokens": "8"}, "invalid_value", "truncate_prompt_tokens"),
        (CLASSIFY, {"truncate_prompt_tokens": True}, "invalid_value", "truncate_prompt_tokens"),
        (CLASSIFY, {"stream": True}, "unsupported_parameter", "stream"),
        (CLASSIFY, {"use_activation": False}, "unsupported_parameter", "use_activation"),
        (CLASSIFY, {"encoding_format": "float"}, "unknown_parameter", "encoding_format"),
        (CLASSIFY, {"user": 7}, "invalid_value", "user"),
        (EMBED, {"dimensions": 8}, "unsupported_parameter", "dimensions"),
        (EMBED, {"encoding_format": "hex"}, "invalid_value", "encoding_format"),
        (EMBED, {"encoding_format": ["float"]}, "invalid_value", "encoding_format"),
        (EMBED, {"temperature": 1}, "unknown_parameter", "temperature"),
    ],
)
def test_a_body_is_refused_by_name_when_a_field_is_wrong(
    url: str, changes: dict[str, object], code: str, param: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_body(url, body(**changes), LIMITS)
    assert (caught.value.code, caught.value.param) == (code, param)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.sampled_from(sorted(ENDPOINTS)),
    st.dictionaries(
        st.sampled_from(
            ["model", "input", "stream", "user", "dimensions", "encoding_format", "truncate_prompt_tokens"]
        ),
        json_values,
    ),
)
def test_any_json_gives_a_request_or_a_refusal(url: str, fields: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidInput):
        assert 1 <= len(parse_body(url, fields, LIMITS).inputs) <= LIMITS.max_inputs
