"""The text that a base or a delta learns from: distinct texts, and every so many held out for evaluation."""

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

_EVERY = 20  # every twentieth text of a corpus is held out
_MOST_DEV = 500  # of each corpus

Sequences = list[NDArray[np.int64]]
ItemT = TypeVar("ItemT")


def split_corpora(
    corpora: Sequence[Sequence[str]], tokenizer: Tokenizer, max_tokens: int, *, has_end: bool
) -> tuple[list[Sequences], Sequences]:
    """Token ids of the training texts, by corpus, and of the dev texts. A text that occurs twice, be it in two corpora,
    is in one part only.

    Raises `InvalidInput`.
    """
    parts = [split_texts(texts, _EVERY, _MOST_DEV, "each corpus of a base") for texts in corpora]
    held_out = set(chain(*(dev for _, dev in parts)))
    learnt = [[text for text in train if text not in held_out] for train, _ in parts]
    if not all(learnt):
        raise InvalidInput("the corpora have so many texts in common that one has nothing left to learn from")

    def encoded(texts: Sequence[str]) -> Sequences:
        return encode(tokenizer, texts, max_tokens, has_end=has_end)

    return [encoded(texts) for texts in learnt], list(chain(*(encoded(dev) for _, dev in parts)))


def split_texts(texts: Sequence[str], every: int, most: int, what: str) -> tuple[list[str], list[str]]:
    """Distinct texts to learn from, and each of them at a multiple of `every`, at most `most`, held out.

    Raises `InvalidInput`, which says `what` needs the text, for fewer than two texts.
    """
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(distinct) < 2:
        raise InvalidInput(f"{what} needs at least two different texts")
    return [text for number, text in enumerate(distinct) if number % every], at_most(distinct[::every], most)


def at_most(items: list[ItemT], most: int) -> list[ItemT]:
    """At most so many of the items, evenly from beginning to end."""
    return items[:: -(-len(items) // most)]


def digest_of_corpora(corpora: Iterable[Iterable[NDArray[np.int64]]]) -> str:
    digest = hashlib.sha256()
    for corpus in corpora:
        for ids in corpus:
            digest.update(ids.tobytes() + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()
