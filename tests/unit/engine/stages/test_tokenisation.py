"""Inputs become ids once each, a bounded piece at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Encoding, Tokenizer

from hmi.engine.stages import tokenise
from hmi.engine.tasks import SequenceTask, Submission
from hmi.engine.vocabulary import TokenLengthBound
from hmi.errors import ContextTooLong, InvalidInput
from hmi.items import GenerationParams, Item, ModelRef, Outcome, Task
from hmi.models.convert import convert_pretrained
from hmi.models.families import load_tokenizer
from hmi.models.text import ChatTemplate
from hmi.spec import read_spec
from tests.tiny import tiny_decoder_folder, tiny_llama

REF = ModelRef("base", "general", None)
CONTEXT = 128


class Counting:
    """A tokenizer that writes down what it is asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.calls: list[list[str]] = []

    def encode_batch_fast(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[Encoding]:
        if texts:
            self.calls.append(list(texts))
        return self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("base")
    convert_pretrained(tiny_decoder_folder(tiny_llama(), root / "source"), root / "base")
    return root / "base"


@pytest.fixture
def base(folder: Path) -> Any:
    """All of a loaded decoder that the stage looks at."""
    return SimpleNamespace(
        digest="base",
        spec=read_spec(folder),
        tokenizer=Counting(load_tokenizer(folder)),
        chat=ChatTemplate("{% for message in messages %}{{ message.content }} {% endfor %}"),
        token_length_bound=None,
    )


def run(base: Any, items: Sequence[Item]) -> tuple[list[list[SequenceTask]], list[Outcome | None]]:
    """The chunks that were handed on, and what was settled instead."""
    bases: Any = SimpleNamespace(get=lambda digest: base)
    submission = Submission(items)
    return list(tokenise(submission, bases)), submission._outcomes


def text(given: str, **more: Any) -> Item:
    return Item(REF, Task.GENERATE, text=given, params=GenerationParams(), **more)


def chat(*contents: str) -> Item:
    return Item(
        REF, Task.GENERATE, messages=tuple(("user", content) for content in contents), params=GenerationParams()
    )


def test_an_input_is_encoded_once_whatever_its_choices(base: Any) -> None:
    items = [text("w1 w2"), text("w1 w2"), text("w3"), chat("w1", "w2"), chat("w1", "w2"), text("w1 w2")]
    ((*tasks,),), _ = run(base, items)
    assert base.tokenizer.calls == [["w1 w2", "w3"], ["w1 w2 "]]
    assert [task.ids.tolist() for task in tasks] == [
        [2, 6, 7, 3],
        [2, 6, 7, 3],
        [2, 8, 3],
        [6, 7],
        [6, 7],
        [2, 6, 7, 3],
    ]
    assert tasks[0].ids is tasks[1].ids


def test_items_of_one_input_are_cut_as_each_asks(base: Any) -> None:
    ((*tasks,),), _ = run(base, [text("w1 w2 w3"), text("w1 w2 w3", truncate_to=2)])
    assert [task.ids.tolist() for task in tasks] == [[2, 6, 7, 8, 3], [2, 6]]


def test_chunks_are_cut_by_characters_and_by_inputs(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmi.engine.stages.tokenisation._CHUNK_CHARACTERS", 6)
    monkeypatch.setattr("hmi.engine.stages.tokenisation._CHUNK", 3)
    given = ["w1 w2", "w1 w2", "w3", "w4", "w5", "w5", "w6", "w7", "w1 w2 w3 w4"]
    chunks, _ = run(base, [text(each) for each in given])
    assert [[given[task.index] for task in chunk] for chunk in chunks] == [
        ["w1 w2", "w1 w2"], ["w3", "w4", "w5", "w5"], ["w6", "w7"], ["w1 w2 w3 w4"],
    ]  # fmt: skip


def test_what_is_far_too_long_is_refused_without_being_encoded(base: Any) -> None:
    base.token_length_bound = TokenLengthBound(longest=3, dropped=b"")
    long = "w1 " * (CONTEXT + 1)
    chunks, outcomes = run(base, [text(long), chat("w1", long), text("w1"), text(long, truncate_to=5)])
    assert [[task.index for task in chunk] for chunk in chunks] == [[2, 3]]
    for outcome in outcomes[:2]:
        assert outcome is not None
        assert isinstance(outcome.error, ContextTooLong)
    assert base.tokenizer.calls == [["w1", long]]


def test_what_is_too_long_by_little_is_refused_too(base: Any) -> None:
    chunks, (outcome,) = run(base, [text("w1 " * CONTEXT)])
    assert chunks == [[]]
    assert outcome is not None
    assert isinstance(outcome.error, ContextTooLong)


def test_a_chat_that_the_template_refuses_fails_alone(base: Any) -> None:
    base.chat = ChatTemplate("{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}w1")
    chunks, outcomes = run(base, [chat("a", "b"), chat("a"), chat("a", "b")])
    assert [[task.index for task in chunk] for chunk in chunks] == [[1]]
    assert [outcome is not None and isinstance(outcome.error, InvalidInput) for outcome in outcomes] == [
        True, False, True,
    ]  # fmt: skip


def test_nothing_is_encoded_for_a_task_that_the_model_has_not(base: Any) -> None:
    chunks, (outcome,) = run(base, [Item(REF, Task.EMBED, text="w1")])
    assert chunks == [[]]
    assert base.tokenizer.calls == []
    assert outcome is not None
    assert isinstance(outcome.error, InvalidInput)
