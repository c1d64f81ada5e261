"""Answers with generated text in OpenAI's shapes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from openai.types import Completion
from openai.types.chat import ChatCompletion

from hmi.items import Finish, Generation, ModelRef, Outcome, TokenBytes, TokenLogprobs
from hmi.jobs import items_of, line_ids, response_body
from hmi.schemas import Chat, InferenceRequest, Limits, parse_body

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
MODEL = "acme/writer"
MESSAGES = [{"role": "user", "content": "hello"}]
IDS = line_ids("batch_1", 7)
REF = ModelRef("base", "general", None)


def text(**fields: Any) -> InferenceRequest:
    return parse_body(TEXT, {"model": MODEL, "prompt": "once", **fields}, Limits())


def chat(**fields: Any) -> InferenceRequest:
    return parse_body(CHAT, {"model": MODEL, "messages": MESSAGES, **fields}, Limits())


def test_an_answer_may_be_sent_back_as_the_client_library_writes_it() -> None:
    body = response_body(chat(), MODEL, [outcome("hi", 1)], 99, IDS)
    answered = ChatCompletion.model_validate(body).choices[0].message.model_dump()
    assert answered["tool_calls"] is None
    found = chat(messages=[*MESSAGES, answered, *MESSAGES])
    assert found.inputs == (Chat((("user", "hello"), ("assistant", "hi"), ("user", "hello"))),)


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


Row = tuple[str, float, list[tuple[str, float]]]


def token_logprobs(*rows_of_tokens: Row) -> TokenLogprobs:
    """Of a vocabulary of the names in them; one in angle brackets is special."""
    names = list(dict.fromkeys(name for own, _, best in rows_of_tokens for name in (own, *(each for each, _ in best))))
    blobs = [name.encode("utf-8", "surrogateescape") for name in names]
    most = max(len(best) for _, _, best in rows_of_tokens)
    rows = [[*best, *[("", math.nan)] * (most - len(best))] for _, _, best in rows_of_tokens]
    return TokenLogprobs(
        token_bytes=TokenBytes(
            blob=b"".join(blobs),
            starts=np.cumsum([0, *map(len, blobs)], dtype=np.int32),
            special=frozenset(number for number, name in enumerate(names) if name[:1] == "<"),
        ),
        ids=np.array([names.index(own) for own, _, _ in rows_of_tokens], np.int32),
        logprobs=np.array([logprob for _, logprob, _ in rows_of_tokens], np.float32),
        best_ids=np.array([[names.index(name) if name else -1 for name, _ in row] for row in rows], np.int32),
        best_logprobs=np.array([[logprob for _, logprob in row] for row in rows], np.float32),
    )


def outcome(said: str, tokens: int, finish: Finish = Finish.STOP, **more: Any) -> Outcome:
    return Outcome(Generation(said, tuple(range(tokens)), finish, **more), None, tokens=3)


def test_answer_is_a_completion_of_openais() -> None:
    first: Row = ("on", math.nan, [])
    second: Row = ("ce", -1.0, [("ce", -1.0), ("ly", -2.0)])
    sure: Row = (" up", -0.5, [(" up", -0.5), (" on", -1.5)])
    never: Row = ("on", -math.inf, [("a", -2.0), ("b", -3.0)])
    outcomes = [
        outcome("once up", 2, logprobs=token_logprobs(first, second, sure, never)),
        outcome("b", 1, Finish.LENGTH, logprobs=token_logprobs(first, sure)),
    ]
    body = response_body(text(n=2, logprobs=2, echo=True), MODEL, outcomes, 99, IDS)
    found = Completion.construct(**body)  # OpenAI too has no log-probability of a prompt's first token
    assert (found.id, found.created, found.model) == (f"cmpl-{IDS.answer}", 99, MODEL)
    assert [(each.index, each.text, each.finish_reason) for each in found.choices] == [
        (0, "once up", "stop"), (1, "b", "length"),
    ]  # fmt: skip
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (3, 3, 6)
    returned = body["choices"][0]["logprobs"]
    assert returned["tokens"] == ["on", "ce", " up", "on"]
    assert returned["token_logprobs"] == [None, -1.0, -0.5, -9999.0]
    assert returned["top_logprobs"] == [
        None, {"ce": -1.0, "ly": -2.0}, {" up": -0.5, " on": -1.5}, {"a": -2.0, "b": -3.0, "on": -9999.0},
    ]  # fmt: skip
    assert returned["text_offset"] == [0, 2, 4, 7]


def test_answer_without_a_prompt_is_one_that_the_client_takes() -> None:
    returned = outcome("up", 1, logprobs=token_logprobs(("up", -0.5, [("up", -0.5)])))
    Completion.model_validate(response_body(text(logprobs=1), MODEL, [returned], 99, IDS))


def parts(whole: str, *ends: int) -> list[str]:
    """Of its bytes, as names."""
    raw = whole.encode()
    return [raw[a:b].decode("utf-8", "surrogateescape") for a, b in itertools.pairwise([0, *ends, len(raw)])]


def test_parts_of_a_character_are_written_as_bytes() -> None:
    front, back = parts("🦜", 2)
    returned = token_logprobs(
        ("<s>", math.nan, []), (" a", -1.0, []), (front, -1.0, [(back, -2.0)]), (back, -1.0, []), ("b", -1.0, [])
    )
    body = response_body(text(logprobs=1, echo=True), MODEL, [outcome("a🦜b", 3, logprobs=returned)], 99, IDS)
    found = body["choices"][0]["logprobs"]
    assert found["tokens"] == ["<s>", " a", r"bytes:\xf0\x9f", r"bytes:\xa6\x9c", "b"]
    assert found["top_logprobs"][2] == {r"bytes:\xa6\x9c": -2.0, r"bytes:\xf0\x9f": -1.0}
    assert found["text_offset"] == [0, 0, 1, 1, 2]


def test_bytes_of_a_chats_tokens_are_its_texts() -> None:
    front, back = parts("🦜", 2)
    returned = token_logprobs((" é", -1.0, []), (front, -1.0, [(back, -2.0)]), (back, -1.0, []), ("<|end|>", -1.0, []))
    body = response_body(chat(logprobs=True, top_logprobs=1), MODEL, [outcome(" é🦜", 4, logprobs=returned)], 99, IDS)
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
