"""Bodies of completions and chats, and the answers to them in OpenAI's shapes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion

from hmi.errors import InvalidInput
from hmi.items import Finish, Generation, GenerationParams, ModelRef, Outcome, Sampling, Task, TokenBytes, TokenLogprobs
from hmi.jobs import Limits, LineRequest, items_of, line_ids, parse_body, response_body
from hmi.jobs.requests import Chat

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
MODEL = "acme/writer"
MESSAGES = [{"role": "user", "content": "hello"}]
IDS = line_ids("batch_1", 7)
REF = ModelRef("base", "general", None)


def text(**fields: Any) -> LineRequest:
    return parse_body(TEXT, {"model": MODEL, "prompt": "once", **fields}, Limits())


def chat(**fields: Any) -> LineRequest:
    return parse_body(CHAT, {"model": MODEL, "messages": MESSAGES, **fields}, Limits())


def test_defaults_are_openais() -> None:
    assert text() == LineRequest(
        MODEL, ("once",), Task.GENERATE, params=GenerationParams(max_tokens=16, sampling=Sampling())
    )
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
    assert found == LineRequest(MODEL, ("a", "b"), Task.GENERATE, params=params, choices=2, seed=-5)
    assert found.sequences == 4
    parts = [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]
    told = chat(
        messages=[{"role": "developer", "content": parts}, *MESSAGES], max_completion_tokens=9, logprobs=True,
        top_logprobs=4, stop="z", response_format={"type": "text"}, tools=[], tool_choice="none", n=1,
    )  # fmt: skip
    assert told.inputs == (Chat((("system", "be brief"), ("user", "hello"))),)
    assert told.params == GenerationParams(9, Sampling(), ("z",), 4)
    named = chat(
        tool_choice="auto", reasoning_effort="none", verbosity="medium", service_tier="auto", safety_identifier="me",
        prompt_cache_key="mine",
    )  # fmt: skip
    assert named == chat()


def test_log_probabilities_are_told_up_to_a_bound_of_one_answer() -> None:
    assert text(max_tokens=4000, n=128, logprobs=5).choices == 128
    assert text(max_tokens=0, echo=True, logprobs=20, prompt="a" * 700_000).sequences == 1
    assert chat(n=100).choices == 100


def test_an_answer_may_be_sent_back_as_the_client_library_writes_it() -> None:
    body = response_body(chat(), MODEL, [outcome("hi", 1)], 99, IDS)
    answered = ChatCompletion.model_validate(body).choices[0].message.model_dump()
    assert answered["tool_calls"] is None
    found = chat(messages=[*MESSAGES, answered, *MESSAGES])
    assert found.inputs == (Chat((("user", "hello"), ("assistant", "hi"), ("user", "hello"))),)


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


def test_choices_have_seeds_of_their_own_and_the_same_ones_on_every_run() -> None:
    request = text(prompt=[[7], [5, 6]], n=3)
    items = items_of(request, REF, IDS)
    assert [(item.text, item.tokens) for item in items] == [(None, (7,))] * 3 + [(None, (5, 6))] * 3
    seeds = [item.params.sampling.seed for item in items if item.params]
    assert len(set(seeds)) == 6
    assert seeds == [item.params.sampling.seed for item in items_of(request, REF, IDS) if item.params]
    other = items_of(request, REF, line_ids("batch_1", 8))[0].params
    assert other is not None
    assert other.sampling.seed != seeds[0]
    own = items_of(text(seed=-5), REF, IDS)[0].params
    assert own is not None
    assert own.sampling.seed == 2**64 - 5
    assert items_of(chat(), REF, IDS)[0].messages == (("user", "hello"),)


Told = tuple[str, float, list[tuple[str, float]]]


def token_logprobs(*told: Told) -> TokenLogprobs:
    """Of a vocabulary of the names in them; one in angle brackets is special."""
    names = list(dict.fromkeys(name for own, _, best in told for name in (own, *(each for each, _ in best))))
    blobs = [name.encode("utf-8", "surrogateescape") for name in names]
    most = max(len(best) for _, _, best in told)
    rows = [[*best, *[("", math.nan)] * (most - len(best))] for _, _, best in told]
    return TokenLogprobs(
        token_bytes=TokenBytes(
            blob=b"".join(blobs),
            starts=np.cumsum([0, *map(len, blobs)], dtype=np.int32),
            special=frozenset(number for number, name in enumerate(names) if name[:1] == "<"),
        ),
        ids=np.array([names.index(own) for own, _, _ in told], np.int32),
        logprobs=np.array([logprob for _, logprob, _ in told], np.float32),
        best_ids=np.array([[names.index(name) if name else -1 for name, _ in row] for row in rows], np.int32),
        best_logprobs=np.array([[logprob for _, logprob in row] for row in rows], np.float32),
    )


def outcome(said: str, tokens: int, finish: Finish = Finish.STOP, **more: Any) -> Outcome:
    return Outcome(Generation(said, tuple(range(tokens)), finish, **more), None, tokens=3)


def test_answer_is_a_completion_of_openais() -> None:
    first: Told = ("on", math.nan, [])
    second: Told = ("ce", -1.0, [("ce", -1.0), ("ly", -2.0)])
    sure: Told = (" up", -0.5, [(" up", -0.5), (" on", -1.5)])
    never: Told = ("on", -math.inf, [("a", -2.0), ("b", -3.0)])
    outcomes = [
        outcome("once up", 2, logprobs=token_logprobs(first, second, sure, never)),
        outcome("b", 1, Finish.LENGTH, logprobs=token_logprobs(first, sure)),
    ]
    body = response_body(text(n=2, logprobs=2, echo=True), MODEL, outcomes, 99, IDS)
    found = Completion.construct(**body)  # told of a prompt, OpenAI too has nothing to say of its first token
    assert (found.id, found.created, found.model) == (f"cmpl-{IDS.answer}", 99, MODEL)
    assert [(each.index, each.text, each.finish_reason) for each in found.choices] == [
        (0, "once up", "stop"), (1, "b", "length"),
    ]  # fmt: skip
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (3, 3, 6)
    told = body["choices"][0]["logprobs"]
    assert told["tokens"] == ["on", "ce", " up", "on"]
    assert told["token_logprobs"] == [None, -1.0, -0.5, -9999.0]
    assert told["top_logprobs"] == [
        None, {"ce": -1.0, "ly": -2.0}, {" up": -0.5, " on": -1.5}, {"a": -2.0, "b": -3.0, "on": -9999.0},
    ]  # fmt: skip
    assert told["text_offset"] == [0, 2, 4, 7]


def test_answer_without_a_prompt_is_one_that_the_client_takes() -> None:
    told = outcome("up", 1, logprobs=token_logprobs(("up", -0.5, [("up", -0.5)])))
    Completion.model_validate(response_body(text(logprobs=1), MODEL, [told], 99, IDS))


def parts(whole: str, *ends: int) -> list[str]:
    """Of its bytes, as names."""
    raw = whole.encode()
    return [raw[a:b].decode("utf-8", "surrogateescape") for a, b in itertools.pairwise([0, *ends, len(raw)])]


def test_parts_of_a_character_are_told_by_their_bytes() -> None:
    front, back = parts("🦜", 2)
    told = token_logprobs(
        ("<s>", math.nan, []), (" a", -1.0, []), (front, -1.0, [(back, -2.0)]), (back, -1.0, []), ("b", -1.0, [])
    )
    body = response_body(text(logprobs=1, echo=True), MODEL, [outcome("a🦜b", 3, logprobs=told)], 99, IDS)
    found = body["choices"][0]["logprobs"]
    assert found["tokens"] == ["<s>", " a", r"bytes:\xf0\x9f", r"bytes:\xa6\x9c", "b"]
    assert found["top_logprobs"][2] == {r"bytes:\xa6\x9c": -2.0, r"bytes:\xf0\x9f": -1.0}
    assert found["text_offset"] == [0, 0, 1, 1, 2]


def test_bytes_of_a_chats_tokens_are_its_texts() -> None:
    front, back = parts("🦜", 2)
    told = token_logprobs((" é", -1.0, []), (front, -1.0, [(back, -2.0)]), (back, -1.0, []), ("<|end|>", -1.0, []))
    body = response_body(chat(logprobs=True, top_logprobs=1), MODEL, [outcome(" é🦜", 4, logprobs=told)], 99, IDS)
    found = ChatCompletion.model_validate(body).choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert bytes(byte for each in found.content for byte in each.bytes or ()).decode() == " é🦜"
    assert [each.token for each in found.content] == [" é", r"\xf0\x9f", r"\xa6\x9c", "<|end|>"]
    assert found.content[1].top_logprobs[0].bytes == list("🦜".encode()[2:])
    assert found.content[3].bytes is None


def test_answer_is_a_chat_completion_of_openais() -> None:
    outcomes = [outcome("hi", 1, logprobs=token_logprobs(("hi", -0.25, [("hi", -0.25), ("ho", -2.0)])))]
    body = response_body(chat(logprobs=True, top_logprobs=2), MODEL, outcomes, 99, IDS)
    found = ChatCompletion.model_validate(body)
    (choice,) = found.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "hi", "stop")
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    (token,) = choice.logprobs.content
    assert (token.token, token.logprob, token.bytes) == ("hi", -0.25, [104, 105])
    assert [(each.token, each.logprob) for each in token.top_logprobs] == [("hi", -0.25), ("ho", -2.0)]
    plain = response_body(chat(), MODEL, [outcome("hi", 1)], 99, IDS)
    assert plain["choices"][0]["logprobs"] is None
