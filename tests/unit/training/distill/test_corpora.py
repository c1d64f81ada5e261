"""Held-out texts are not trained on, whichever corpus they come from."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hmi.errors import InvalidInput
from hmi.training.distill import split_corpora
from hmi.training.lower import encode
from tests.tiny import tiny_tokenizer


def texts(first: int, count: int) -> list[str]:
    return [f"w{number % 90} w{number // 90}" for number in range(first, first + count)]


def split(*corpora: list[str]) -> tuple[list[list[tuple[int, ...]]], list[tuple[int, ...]]]:
    def plain(sequences: list[NDArray[np.int64]]) -> list[tuple[int, ...]]:
        return [tuple(ids.tolist()) for ids in sequences]

    seen, judges = split_corpora(corpora, tiny_tokenizer(), 8, has_end=True)
    return [plain(corpus) for corpus in seen], plain(judges)


def test_every_twentieth_text_is_held_out_in_order() -> None:
    corpus = texts(0, 100)
    ids = [tuple(each.tolist()) for each in encode(tiny_tokenizer(), corpus, 8)]
    seen, judges = split([*corpus, *corpus])
    assert judges == ids[::20]
    assert seen == [[each for number, each in enumerate(ids) if number % 20]]
    (first, second), both = split(corpus, texts(200, 50))
    assert (first, both[:5]) == (seen[0], judges)
    assert (len(second), len(both)) == (47, 8)


def test_text_of_two_corpora_is_in_one_part_only() -> None:
    seen, judges = split(texts(0, 100), texts(7, 100))
    assert len(judges) == 10
    assert not {*seen[0], *seen[1]} & set(judges)


def test_corpora_are_refused_when_one_has_no_text_left() -> None:
    with pytest.raises(InvalidInput, match="in common"):
        split(["w1", "w2"], ["w2", "w1"])
