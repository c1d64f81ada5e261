"""Words of a tokenized text, which carry the labels of token classification, and BIO tags of words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Encoding

OUTSIDE = "O"
BEGIN, INSIDE = "B-", "I-"


@dataclass(frozen=True, slots=True)
class Word:
    token: int  # index of the first token, special tokens included; its label is the word's label
    start: int  # Characters `start` to `end` (excluded) of the text
    end: int


@dataclass(frozen=True, slots=True)
class Entity:
    """Words `first` to `last` (included), which BIO tags make one entity of type `name`."""

    first: int
    last: int
    name: str


def words_of(encoding: Encoding, tokens: int) -> list[Word]:
    """Return the words whose first token is among the `tokens` that the model reads.

    `encoding` is that of the whole text, made with offsets (`encode`, not `encode_batch_fast`).
    """
    read = tokens if len(encoding.ids) <= tokens else tokens - 1  # a truncated text ends in a special token
    offsets = encoding.offsets
    pieces = ((word, place) for place, word in enumerate(encoding.word_ids) if word is not None)
    words = []
    for _, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
        places = [place for _, place in group]
        if places[0] < read:
            words.append(Word(places[0], offsets[places[0]][0], offsets[places[-1]][1]))
    return words


def is_bio(labels: Iterable[str]) -> bool:
    """Return whether the labels are BIO tags: `B-x`, `I-x` and `O` only."""
    named = set(labels) - {OUTSIDE}
    return bool(named) and all(label.startswith((BEGIN, INSIDE)) and len(label) > len(BEGIN) for label in named)


def bio_entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities that BIO tags describe. An `I-x` without a preceding x begins an entity, as in conlleval."""
    found: list[Entity] = []
    for place, tag in enumerate(tags):
        if tag == OUTSIDE:
            continue
        last = found[-1] if found else None
        if tag.startswith(INSIDE) and last and last.last == place - 1 and last.name == tag[len(INSIDE) :]:
            found[-1] = Entity(last.first, place, last.name)
        else:
            found.append(Entity(place, place, tag[len(BEGIN) :]))
    return found
