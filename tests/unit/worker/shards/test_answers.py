"""How a shard's sequences are submitted to the engine."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.catalog import RegisteredModel
from hmi.errors import NotFound
from hmi.items import Item
from hmi.jobs import Weight
from hmi.schemas import Limits, parse_body
from hmi.spec import MissPolicy
from worker.shards import answers as answering
from worker.shards.answers import _Line, _submissions

MODEL = RegisteredModel(
    model_id="model", name="acme/writer", tenant_id="tenant", tenant="acme", base_id="id", base_name="base",
    base_artifact="digest", domain="general", artifact=None, delta=None, miss_policy=MissPolicy.EXACT, revision=1,
    summary={}, created_at=0.0,
)  # fmt: skip


def asked(number: int, prompts: int = 1, **fields: object) -> _Line:
    """Return a line with prompts; without any, one that was refused."""
    if not prompts:
        return _Line(number, str(number), None, None, NotFound("no such model"))
    body = {"model": "acme/writer", "prompt": [f"{number}-{each}" for each in range(prompts)], **fields}
    return _Line(number, str(number), parse_body("/v1/completions", body, Limits()), MODEL, None)


def sizes(lines: Sequence[_Line]) -> list[int]:
    return [len(piece.items) for piece in _submissions(lines, "batch")]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 12))
def test_every_sequence_is_submitted_once_and_every_line_ends_with_its_last(counts: list[int], most: int) -> None:
    lines = [asked(number, count) for number, count in enumerate(counts)]
    items: list[Item] = []
    ended: list[_Line] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(answering, "_SUBMISSION", Weight(most, 10**9, 10**9))
        for piece in _submissions(lines, "batch"):
            assert len(piece.items) <= most
            items += piece.items
            ended += piece.ended
            assert sum(line.sequences for line in ended) <= len(items)
    assert items == [item for line in lines for item in line.items("batch")]
    assert ended == lines


def test_a_submission_has_fewer_sequences_when_texts_are_long() -> None:
    assert sizes([asked(number, max_tokens=1) for number in range(600)]) == [512, 88]
    assert sizes([asked(number, max_tokens=512) for number in range(70)]) == [34, 34, 2]
    assert sizes([asked(0, n=100, max_tokens=512)]) == [34, 34, 32]
    # A high token limit does not reduce a submission to a few texts.
    assert sizes([asked(number, max_tokens=4096) for number in range(36)]) == [34, 2]


def test_a_submission_has_fewer_sequences_when_log_probabilities_are_returned() -> None:
    long = asked(0, n=8, max_tokens=1, echo=True, logprobs=20, prompt=["x" * 8000])  # 10.8 MB of log-probabilities each
    assert sizes([long]) == [3, 3, 2]


def test_a_sequence_that_exceeds_the_limit_is_submitted_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_SUBMISSION", Weight(512, 100, 10**9))
    assert sizes([asked(0, max_tokens=10), asked(1, max_tokens=4000), asked(2, max_tokens=10)]) == [1, 1, 1]
