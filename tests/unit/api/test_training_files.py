from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from api.fine_tuning.training_files import TokenCounter
from hmi.training.data import Example
from tests.apis import base_files


def new_tokenizer() -> Tokenizer:
    return Tokenizer.from_buffer(base_files()["tokenizer.json"])


class _Watched:
    """A tokenizer that notes how many characters it is given at once."""

    def __init__(self) -> None:
        self._tokenizer = new_tokenizer()
        self.given: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, text: str) -> Any:
        self.given.append(len(text))
        return self._tokenizer.encode(text)

    def encode_batch_fast(self, texts: list[str]) -> Any:
        self.given.append(sum(map(len, texts)))
        return self._tokenizer.encode_batch_fast(texts)


def counted(tokenizer: Any, texts: list[str], max_tokens: int) -> int:
    counter = TokenCounter(tokenizer, max_tokens)
    for text in texts:
        counter.add(Example(text, "good"))
    return counter.total


@pytest.mark.parametrize(
    "texts",
    [["w1 " * 300_000] * 3, ["x" * 200_000, "w1 " + "y" * 300_000 + " w2 w3"], ["w1 w2 " * 2_000] * 60],
    ids=["long", "without spaces", "many"],
)
@pytest.mark.parametrize("max_tokens", [8, 100_000])
def test_tokens_are_counted_a_part_at_a_time(texts: list[str], max_tokens: int) -> None:
    watched = _Watched()
    whole = new_tokenizer()
    whole.enable_truncation(max_tokens)
    expected = sum(len(whole.encode(text).ids) for text in texts)
    # A word that is longer than a piece is counted once for each.
    assert counted(watched, texts, max_tokens) in range(expected, expected + 10)
    assert max(watched.given) < 2**19


def test_of_a_long_text_no_more_is_read_than_counts() -> None:
    watched = _Watched()
    assert counted(watched, ["w1 " * 300_000], 8) == 8
    assert sum(watched.given) <= 2**16
