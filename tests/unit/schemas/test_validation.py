"""Pydantic's errors in the terms of the caller."""

from __future__ import annotations

from typing import Any

import pytest

from hmi.errors import InvalidInput
from hmi.schemas import FrequenciesCreate, JobCreate, Limits, TenantCreate, parse_body
from hmi.schemas.validation import validate

CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


@pytest.mark.parametrize(
    ("url", "fields", "message"),
    [
        (EMBED, {}, "input is missing"),
        (EMBED, {"input": 3}, "input must be a string, a list of strings, a list of token ids, or a"),
        (EMBED, {"input": ["a", 3]}, "input[1] must be a string"),
        (EMBED, {"input": [["a"]]}, "input[0] must hold token ids only, whole numbers from 0 to 2097150"),
        (EMBED, {"input": ["a"] * 3}, "input has 3 entries; at most 2 are allowed"),
        (EMBED, {"input": "a", "colour": 1}, "a request to /v1/embeddings has no field 'colour'"),
        (EMBED, {"input": "a", "#text": 1}, "a request to /v1/embeddings has no field '#text'"),
        (EMBED, {"input": "a", "dimensions": 8}, "dimensions is not supported: embeddings have the model's own number"),
        (EMBED, {"input": "a", "encoding_format": "hex"}, "encoding_format must be one of 'float' or 'base64'"),
        (TEXT, {"prompt": "a", "n": 0}, "n must be at least 1"),
        (TEXT, {"prompt": "a", "n": "1"}, "n must be a whole number"),
        (TEXT, {"prompt": "a", "n": True}, "n must be a whole number"),
        (TEXT, {"prompt": "a", "stop": [""]}, "stop[0] must not be empty"),
        (TEXT, {"prompt": "a", "stop": "b" * 257}, "stop must have at most 256 characters"),
        (TEXT, {"prompt": "\udc00"}, "prompt holds half a surrogate pair, which is no character"),
        (CHAT, {"messages": ["a"]}, "messages[0] must be an object"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text must be"),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role must be one of 'system', "),
        (CHAT, {"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages[0] is not supported: "),
    ],
)  # fmt: skip
def test_a_message_names_the_field_and_what_is_wanted(url: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_body(url, {"model": "acme/m", **fields}, Limits(max_inputs=2))
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({"hmi": {"colour": 1}}, "hmi has no field 'colour'", "hmi.colour"),
        ({"hmi": {"rank": "4"}}, "hmi.rank must be a whole number", "hmi.rank"),
        ({"hmi": {"task": "poetry"}}, "hmi.task must be one of", "hmi.task"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs must be 'auto' or a whole", "n_epochs"),
        ({"hyperparameters": {"n_epochs": True}}, "hyperparameters.n_epochs must be 'auto' or a whole", "n_epochs"),
        ({"hyperparameters": {"n_epochs": 101}}, "hyperparameters.n_epochs must be at most 100", "n_epochs"),
        ({"metadata": {"a": 1}}, "metadata.a must be a string", "metadata.a"),
    ],
)
def test_a_nested_field_is_named_by_its_path(body: dict[str, Any], message: str, param: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        validate(JobCreate, {"model": "m", "training_file": "file-1", **body}, "the request")
    assert caught.value.message.startswith(message)
    assert str(caught.value.param).endswith(param)


def test_a_job_takes_names_of_tasks_and_auto() -> None:
    body = {"model": "m", "training_file": "f", "hmi": {"task": "tokens"}, "hyperparameters": {"n_epochs": "auto"}}
    job = validate(JobCreate, body, "the request")
    assert job.model_dump(mode="json", exclude_none=True) == body


def test_one_error_is_made_of_a_list_with_many_faults() -> None:
    with pytest.raises(InvalidInput, match=r"texts\[0\] must be a string"):
        validate(FrequenciesCreate, {"base": "b", "domain": "d", "texts": [1] * 1000}, "the request")


def test_nothing_is_coerced() -> None:
    with pytest.raises(InvalidInput, match="weight must be a whole number"):
        validate(TenantCreate, {"name": "acme", "weight": "2"}, "the request")
