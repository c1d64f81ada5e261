"""Text to make a base of: what is learnt from and what judges, as token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hmi.errors import InvalidInput
from hmi.training.states import encode

__all__ = ["digest_of_corpora", "some", "split_corpora"]

_HELD_OUT = 20  # every twentieth text judges, the others are learnt from
_MOST_JUDGES = 500  # of each corpus

Sequences = list[NDArray[np.int64]]


def split_corpora(
    corpora: Sequence[Sequence[str]], tokenizer: Tokenizer, max_tokens: int, *, has_end: bool
) -> tuple[list[Sequences], Sequences]:
    """Token ids of what is learnt from, by corpus, and of what judges; a text that occurs twice is in one part only.

    Raises `InvalidInput`.
    """
    seen: list[Sequences] = []
    judges: Sequences = []
    for texts in corpora:
        distinct = list(dict.fromkeys(text for text in texts if text.strip()))
        if len(distinct) < 2:
            raise InvalidInput("fitting a base needs at least two different texts of each corpus")
        sequences = encode(tokenizer, distinct, max_tokens, has_end=has_end)
        judges += some(sequences[::_HELD_OUT], _MOST_JUDGES)
        seen.append([ids for number, ids in enumerate(sequences) if number % _HELD_OUT])
    return seen, judges


def some(sequences: Sequences, most: int) -> Sequences:
    """At most so many of them, evenly from beginning to end."""
    return sequences[:: -(-len(sequences) // most)]


def digest_of_corpora(corpora: Iterable[Iterable[NDArray[np.int64]]]) -> str:
    digest = hashlib.sha256()
    for corpus in corpora:
        for ids in corpus:
            digest.update(ids.tobytes() + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()
