"""Text to make a base of: what is learnt from and what judges, as token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hmi.errors import InvalidInput
from hmi.training.lower import encode

__all__ = ["digest_of_corpora", "some", "split_corpora"]

_HELD_OUT = 20  # every twentieth text judges, the others are learnt from
_MOST_JUDGES = 500  # of each corpus

Sequences = list[NDArray[np.int64]]
ItemT = TypeVar("ItemT")


def split_corpora(
    corpora: Sequence[Sequence[str]], tokenizer: Tokenizer, max_tokens: int, *, has_end: bool
) -> tuple[list[Sequences], Sequences]:
    """Token ids of what is learnt from, by corpus, and of what judges; a text that occurs twice, be it in two corpora,
    is in one part only.

    Raises `InvalidInput`.
    """
    distinct = [list(dict.fromkeys(text for text in texts if text.strip())) for texts in corpora]
    if any(len(texts) < 2 for texts in distinct):
        raise InvalidInput("fitting a base needs at least two different texts of each corpus")
    judging = [some(texts[::_HELD_OUT], _MOST_JUDGES) for texts in distinct]
    judged = set(chain(*judging))
    learnt = [
        [text for number, text in enumerate(texts) if number % _HELD_OUT and text not in judged] for texts in distinct
    ]
    if not all(learnt):
        raise InvalidInput("the corpora have so many texts in common that one has nothing left to learn from")

    def encoded(texts: Sequence[str]) -> Sequences:
        return encode(tokenizer, texts, max_tokens, has_end=has_end)

    return [encoded(texts) for texts in learnt], list(chain(*map(encoded, judging)))


def some(items: list[ItemT], most: int) -> list[ItemT]:
    """At most so many of them, evenly from beginning to end."""
    return items[:: -(-len(items) // most)]


def digest_of_corpora(corpora: Iterable[Iterable[NDArray[np.int64]]]) -> str:
    digest = hashlib.sha256()
    for corpus in corpora:
        for ids in corpus:
            digest.update(ids.tobytes() + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()
