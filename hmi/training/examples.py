"""Labelled text, and the checks that training makes before it spends any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hmi.errors import InvalidInput

__all__ = ["Example", "labels_of", "majority_label"]


@dataclass(frozen=True, slots=True)
class Example:
    """One text and the name of its class."""

    text: str
    label: str


def labels_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """The distinct labels in alphabetical order, which becomes the order of the head's outputs.

    Raises `InvalidInput` for text or labels that a classifier cannot be trained on, naming the example
    (1-based).
    """
    for number, example in enumerate(examples, start=1):
        if not example.text.strip():
            raise InvalidInput(f"example {number}: its text is empty")
        if not example.label:
            raise InvalidInput(f"example {number}: its label is empty")
    labels = tuple(sorted({example.label for example in examples}))
    if len(labels) < 2:
        found = f"only {labels[0]!r} is there" if labels else "there are no examples"
        raise InvalidInput(f"a classifier needs at least two labels; {found}")
    return labels


def majority_label(examples: Sequence[Example]) -> str:
    """The most frequent label, the first in alphabetical order where two are equal."""
    counts = Counter(example.label for example in examples)
    return min(counts, key=lambda label: (-counts[label], label))
