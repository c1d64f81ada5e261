"""When a text is at its end and how it reads, by tokenizers of several kinds."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from hmi.engine.decode.sequence import GeneratingSequence
from hmi.engine.vocabulary import read_token_bytes
from hmi.items import Finish, GenerationParams
from tests.vocabularies import END, byte_level, sentencepiece

MAKERS = {"byte_level": byte_level, "sentencepiece": sentencepiece}
tokenizers = pytest.mark.parametrize("kind", list(MAKERS))


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    return MAKERS[kind]()


def text_after(kind: str, prompt: str | list[int], **params: Any) -> GeneratingSequence:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer.encode(prompt).ids if isinstance(prompt, str) else prompt
    base = SimpleNamespace(spec=SimpleNamespace(eos_token_ids=(END,)), tokenizer=tokenizer)
    item = SimpleNamespace(text=prompt if isinstance(prompt, str) else None)
    task: Any = SimpleNamespace(ids=np.array(ids, np.int64), base=base, item=item)
    given = GenerationParams(max_tokens=1000, **params)
    return GeneratingSequence(task, given, len(ids) + 1000, read_token_bytes(tokenizer))


def ids_after(kind: str, prompt: str, more: str) -> list[int]:
    """Of `more`, where it stands after the prompt."""
    first = tokenizer_of(kind).encode(prompt).ids
    both = tokenizer_of(kind).encode(prompt + more).ids
    assert both[: len(first)] == first
    return both[len(first) :]


def continued(text: GeneratingSequence, ids: list[int]) -> str:
    """By these until it ends."""
    for token in ids:
        if text.append(token):
            break
    return text.result().text


STOPS = ["🦜" * 10, "ผู้ใช้ถามว่า:", "用户:", "Human:", " is", "ཞུ་མཁན་གྱི་དྲི་བ།", "é", "\n\n"]


@tokenizers
@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_string_of_any_script_is_found(kind: str, stop: str) -> None:
    text = text_after(kind, "The", stop=("nowhere", stop))
    assert continued(text, ids_after(kind, "The", f" 🦜ok{stop} more")) == " 🦜ok"
    assert text.finish is Finish.STOP
    assert len(text.generated) < len(ids_after(kind, "The", f" 🦜ok{stop} more"))


@tokenizers
def test_a_stop_string_is_found_among_tokens_that_have_no_text(kind: str) -> None:
    text = text_after(kind, "The", stop=("🦜🦜",), ignore_eos=True)
    ids = ids_after(kind, "The", " ok🦜🦜 more")
    assert continued(text, [each for token in ids for each in (token, *[END] * 20)]) == " ok"
    assert text.finish is Finish.STOP


@tokenizers
@given(before=st.text(max_size=20), stop=st.text(min_size=1, max_size=8), after=st.text(max_size=4))
def test_a_text_ends_where_its_stop_string_first_stands(kind: str, before: str, stop: str, after: str) -> None:
    whole = before + stop + after
    text = text_after(kind, "The", stop=(stop,))
    found = continued(text, ids_after(kind, "The", whole))
    assert found == whole[: whole.index(stop)]
    assert text.finish is Finish.STOP


@tokenizers
def test_a_stop_string_of_the_prompts_ends_nothing(kind: str) -> None:
    text = text_after(kind, "The is is", stop=(" is",))
    assert continued(text, ids_after(kind, "The is is", " ok is")) == " ok"


@tokenizers
@pytest.mark.parametrize("echo", [False, True])
def test_a_text_begins_with_the_space_that_follows_the_prompt(kind: str, echo: bool) -> None:
    text = text_after(kind, "The capital", echo=echo)
    assert continued(text, [*ids_after(kind, "The capital", " is Paris"), END]) == "The capital" * echo + " is Paris"
    assert text.finish is Finish.STOP


@tokenizers
@pytest.mark.parametrize("end", [[], [END] * 20])
def test_a_space_is_kept_after_tokens_that_have_no_text(kind: str, end: list[int]) -> None:
    prompt = tokenizer_of(kind).encode("The capital").ids + end
    assert continued(text_after(kind, prompt, echo=True), ids_after(kind, "The", " is")) == "The capital is"


@tokenizers
def test_a_character_that_the_prompt_began_is_whole_once(kind: str) -> None:
    ids = tokenizer_of(kind).encode("The 🦜").ids
    more = ids_after(kind, "The 🦜", " is")
    for cut in (1, 2):
        assert continued(text_after(kind, ids[:-cut], echo=True), ids[-cut:] + more) == "The 🦜 is"
        assert continued(text_after(kind, ids[:-cut]), ids[-cut:] + more) == "🦜 is"
