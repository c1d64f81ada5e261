"""Tags of words: which are no label at all, and which make a named part of a text together (BIO)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OUTSIDE = "O"
BEGIN, INSIDE = "B-", "I-"


@dataclass(frozen=True, slots=True)
class Entity:
    """Words `first` to `last`, both counted, that are one `name`."""

    first: int
    last: int
    name: str


def is_bio(labels: Iterable[str]) -> bool:
    """Whether the labels say where named parts begin and go on: `B-x`, `I-x` and `O`, and nothing else."""
    named = set(labels) - {OUTSIDE}
    return bool(named) and all(label.startswith((BEGIN, INSIDE)) and len(label) > len(BEGIN) for label in named)


def bio_entities(tags: Sequence[str]) -> list[Entity]:
    """The named parts that BIO tags spell. An `I-x` after anything but an x begins one too, as conlleval reads it."""
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
