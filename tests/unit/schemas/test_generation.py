"""Bodies of completions and chats."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.errors import InvalidInput
from hmi.items import GenerationParams, Sampling, Task
from hmi.schemas import Chat, GenerationRequest, InferenceRequest, Limits, parse_body

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
MODEL = "acme/writer"
MESSAGES = [{"role": "user", "content": "hello"}]


def text(**fields: Any) -> InferenceRequest:
    return parse_body(TEXT, {"model": MODEL, "prompt": "once", **fields}, Limits())


def chat(**fields: Any) -> InferenceRequest:
    return parse_body(CHAT, {"model": MODEL, "messages": MESSAGES, **fields}, Limits())


def test_defaults_are_openais() -> None:
    plain = text()
    assert (plain.model, plain.inputs, plain.task, plain.choices) == (MODEL, ("once",), Task.GENERATE, 1)
    assert plain.params == GenerationParams(max_tokens=16, sampling=Sampling())
    found = chat()
    assert found.inputs == (Chat((("user", "hello"),)),)
    assert found.params is not None
    assert found.params.max_tokens == 2**31 - 1


def test_everything_that_is_offered_is_taken() -> None:
    found = text(
        prompt=["a", "b"], max_tokens=3, temperature=0, top_p=0.5, top_k=9, n=2, stop=["x", "y"], seed=-5, logprobs=2,
        echo=True, best_of=2, presence_penalty=0, frequency_penalty=0.0, logit_bias={}, suffix="", stream=False,
        user="me", ignore_eos=True,
    )  # fmt: skip
    params = GenerationParams(3, Sampling(0, 9, 0.5), ("x", "y"), 2, echo=True, ignore_eos=True)
    assert isinstance(found, GenerationRequest)
    assert (found.inputs, found.params, found.choices, found.seed) == (("a", "b"), params, 2, -5)
    assert found.sequences == 4
    parts = [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]
    shown = chat(
        messages=[{"role": "developer", "content": parts}, *MESSAGES], max_completion_tokens=9, logprobs=True,
        top_logprobs=4, stop="z", response_format={"type": "text"}, tools=[], tool_choice="none", n=1,
    )  # fmt: skip
    assert shown.inputs == (Chat((("system", "be brief"), ("user", "hello"))),)
    assert shown.params == GenerationParams(9, Sampling(), ("z",), 4)
    named = chat(
        tool_choice="auto", reasoning_effort="none", verbosity="medium", service_tier="auto", safety_identifier="me",
        prompt_cache_key="mine",
    )  # fmt: skip
    assert (named.inputs, named.params, named.choices) == (chat().inputs, chat().params, 1)


def test_log_probabilities_are_returned_up_to_a_bound_of_one_answer() -> None:
    assert text(max_tokens=4000, n=128, logprobs=5).choices == 128
    assert text(max_tokens=0, echo=True, logprobs=20, prompt="a" * 700_000).sequences == 1
    assert chat(n=100).choices == 100


def test_a_message_may_be_empty_beside_others() -> None:
    empty = [{"role": "system", "content": ""}, {"role": "user", "content": [{"type": "text", "text": ""}]}]
    assert chat(messages=[*empty, *MESSAGES]).inputs == (Chat((("system", ""), ("user", ""), ("user", "hello"))),)


@pytest.mark.parametrize(
    ("url", "fields", "param"),
    [
        (TEXT, {"prompt": ""}, "prompt"),
        (TEXT, {"prompt": None}, "prompt"),
        (TEXT, {"prompt": ["a", 3]}, "prompt[1]"),
        (TEXT, {"max_tokens": 0}, "max_tokens"),
        (TEXT, {"max_tokens": 1.5}, "max_tokens"),
        (TEXT, {"temperature": 2.1}, "temperature"),
        (TEXT, {"temperature": True}, "temperature"),
        (TEXT, {"top_p": -0.1}, "top_p"),
        (TEXT, {"top_k": -2}, "top_k"),
        (TEXT, {"n": 129}, "n"),
        (TEXT, {"best_of": 3}, "best_of"),
        (TEXT, {"stop": ["a"] * 5}, "stop"),
        (TEXT, {"stop": ""}, "stop"),
        (TEXT, {"stop": "a" * 257}, "stop"),
        (TEXT, {"logprobs": 21}, "logprobs"),
        (TEXT, {"logprobs": True}, "logprobs"),
        (TEXT, {"logprobs": 20, "n": 128, "max_tokens": 2000}, "logprobs"),
        (TEXT, {"logprobs": 20, "echo": True, "prompt": ["a" * 100_000] * 8}, "logprobs"),
        (TEXT, {"logprobs": 0, "echo": True, "n": 128, "max_tokens": 0, "prompt": [[7] * 40_000]}, "logprobs"),
        (CHAT, {"logprobs": True, "top_logprobs": 20, "n": 128}, "top_logprobs"),
        (CHAT, {"service_tier": "flex"}, "service_tier"),
        (TEXT, {"echo": "yes"}, "echo"),
        (TEXT, {"seed": 2**63}, "seed"),
        (TEXT, {"stream": True}, "stream"),
        (TEXT, {"presence_penalty": 0.1}, "presence_penalty"),
        (TEXT, {"logit_bias": {"3": 1}}, "logit_bias"),
        (TEXT, {"suffix": "end"}, "suffix"),
        (TEXT, {"messages": MESSAGES}, "messages"),
        (CHAT, {"prompt": "x"}, "prompt"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": None}, "messages"),
        (CHAT, {"messages": ["hello"]}, "messages[0]"),
        (CHAT, {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": ""}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        (CHAT, {"messages": [{"role": "assistant", "content": None, "tool_calls": None}]}, "messages[0].content"),
        (CHAT, {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        (CHAT, {"messages": [*MESSAGES, {"role": "user"}]}, "messages[1].content"),
        (CHAT, {"messages": [{"role": "assistant", "content": "x", "tool_calls": []}]}, "messages[0]"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        (CHAT, {"logprobs": 3}, "logprobs"),
        (CHAT, {"top_logprobs": 3}, "top_logprobs"),
        (CHAT, {"tools": [{}]}, "tools"),
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format"),
        (CHAT, {"max_completion_tokens": 0}, "max_completion_tokens"),
    ],
)  # fmt: skip
def test_a_body_is_refused_by_name_when_a_field_is_wrong(url: str, fields: dict[str, Any], param: str) -> None:
    body = {"model": MODEL, **({"prompt": "once"} if url == TEXT else {"messages": MESSAGES}), **fields}
    with pytest.raises(InvalidInput) as caught:
        parse_body(url, body, Limits())
    assert caught.value.param == param


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["messages", "prompt", "n", "stop", "logprobs", "top_p", "seed", "tools", "max_tokens", "echo"])


@given(st.sampled_from([TEXT, CHAT]), st.dictionaries(names, json_values, max_size=4))
def test_any_json_gives_a_request_or_a_refusal(url: str, fields: dict[str, Any]) -> None:
    body = {"model": MODEL, **({"prompt": "once"} if url == TEXT else {"messages": MESSAGES}), **fields}
    try:
        parse_body(url, body, Limits())
    except InvalidInput as refused:
        named = refused.param
    else:
        named = "nothing is wrong"
    assert named
