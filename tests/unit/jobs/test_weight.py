"""Estimates of lines and sequences."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.items import GenerationParams, Item, ModelRef, Task
from hmi.jobs import Weight, items_of, line_ids, weigh_item
from hmi.jobs.weight import weigh_line
from hmi.schemas import ENDPOINTS, BatchLine, Limits, parse_body

EMBED, TEXT, CHAT = "/v1/embeddings", "/v1/completions", "/v1/chat/completions"
REF = ModelRef("base", "general", None)


def line(url: str, body: dict[str, Any]) -> BatchLine:
    return BatchLine(custom_id="id", method="POST", url=url, body=body)


@pytest.mark.parametrize(
    ("url", "body", "expected"),
    [
        (EMBED, {"input": "x"}, Weight(1, 0, 320)),
        (EMBED, {"input": ["x", "y"]}, Weight(2, 0, 320)),
        (EMBED, {"input": [5, 6]}, Weight(1, 0, 320)),
        (TEXT, {"prompt": "x"}, Weight(1, 10 + 16, 320)),
        (TEXT, {"prompt": "x", "max_tokens": 0}, Weight(1, 10, 320)),
        (TEXT, {"prompt": ["x", "y"], "n": 3, "max_tokens": 100}, Weight(6, 3 * 10 + 600, 320)),
        (TEXT, {"prompt": [5, 6], "max_tokens": 2**31 - 1}, Weight(1, 10 + 512, 320)),
        (TEXT, {"prompt": "x", "max_tokens": 10**6}, Weight(1, 10 + 4096, 320)),
        (TEXT, {"prompt": "x", "max_tokens": "many", "n": 1000}, Weight(1, 10 + 16, 320)),
        (CHAT, {"messages": []}, Weight(1, 10 + 512, 320)),
        (CHAT, {"messages": [], "max_tokens": 7, "n": 2}, Weight(2, 2 * 10 + 14, 320)),
        (CHAT, {"messages": [], "max_tokens": 7, "max_completion_tokens": 5}, Weight(1, 10 + 5, 320)),
    ],
)
def test_a_line_weighs_its_inputs_and_generated_tokens(url: str, body: dict[str, Any], expected: Weight) -> None:
    assert weigh_line(line(url, body), 320) == expected


def test_cost_is_generated_or_prefilled_tokens_and_at_least_the_sequences() -> None:
    assert Weight(1, 0, 100).cost == 3
    assert Weight(1, 0, 10).cost == 1
    assert Weight(2048, 0, 3200).cost == 2048
    assert weigh_line(line(TEXT, {"prompt": "x", "n": 128, "max_tokens": 200}), 320).cost == 128 * 210
    assert weigh_line(line(TEXT, {"prompt": "x", "max_tokens": 0, "echo": True}), 32_000).cost == 1000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["input", "prompt", "n", "max_tokens", "max_completion_tokens", "messages"])


@given(st.sampled_from(sorted(ENDPOINTS)), st.dictionaries(names, json_values, max_size=4), st.integers(0, 2**20))
def test_any_body_has_a_weight(url: str, body: dict[str, Any], length: int) -> None:
    found = weigh_line(line(url, body), length)
    assert found.sequences >= 1
    assert found.tokens >= 0
    assert found.bytes == length


def test_sequences_weigh_together_as_much_as_their_line() -> None:
    body = {"model": "a/b", "prompt": ["x" * 320, "y" * 320], "n": 3, "max_tokens": 100}
    items = items_of(parse_body(TEXT, body, Limits()), REF, line_ids("batch", 0))
    assert sum(map(weigh_item, items), Weight()) == weigh_line(line(TEXT, body), 640) + Weight(0, 0, -640)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (Item(REF, Task.EMBED, text="x" * 100), Weight(1)),
        (Item(REF, Task.GENERATE, tokens=(5,) * 80, params=GenerationParams(16)), Weight(1, 10 + 16, 0)),
        (Item(REF, Task.GENERATE, text="x" * 320, params=GenerationParams(16, echo=True)), Weight(1, 10 + 16, 320)),
        (
            Item(REF, Task.GENERATE, text="x" * 320, params=GenerationParams(16, logprobs=20)),
            Weight(1, 10 + 16, 16 * 21 * 256),
        ),
        (
            Item(REF, Task.GENERATE, text="x" * 320, params=GenerationParams(16, logprobs=0, echo=True)),
            Weight(1, 10 + 16, (80 + 16) * 256 + 320),
        ),
        (
            Item(REF, Task.GENERATE, messages=(("user", "x" * 64),), params=GenerationParams(2**31 - 1)),
            Weight(1, 2 + 512, 0),
        ),
    ],
)
def test_a_sequence_weighs_its_generated_tokens_and_its_answer(item: Item, expected: Weight) -> None:
    assert weigh_item(item) == expected
