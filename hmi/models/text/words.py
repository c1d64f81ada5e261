"""The words of a text as a tokenizer cuts it: what labels of words are given to and read from."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from tokenizers import Encoding


@dataclass(frozen=True, slots=True)
class Word:
    """`token` is the place of its first piece in the sequence, special tokens counted; it speaks for the whole word.
    Characters `start` to `end` (excluded) of the text."""

    token: int
    start: int
    end: int


def words_of(encoding: Encoding, tokens: int) -> list[Word]:
    """The words whose first piece the model reads.

    Args:
        encoding: Of the whole text, made with offsets (`encode`, not `encode_batch_fast`).
        tokens: Of the sequence that the model is given. Where the text had more, its last one is a special token.
    """
    read = tokens if len(encoding.ids) <= tokens else tokens - 1
    offsets = encoding.offsets
    pieces = ((word, place) for place, word in enumerate(encoding.word_ids) if word is not None)
    words = []
    for _, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
        places = [place for _, place in group]
        if places[0] < read:
            words.append(Word(places[0], offsets[places[0]][0], offsets[places[-1]][1]))
    return words
