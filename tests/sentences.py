"""Labelled sentences of the tiny tokenizer's words."""

from __future__ import annotations

import random

from hmi.training.data import Example

__all__ = ["sentences"]


def sentences(count: int, seed: int) -> list[Example]:
    """Labelled by which of two words is among them, at any place."""
    drawn = random.Random(seed)
    found = []
    for number in range(count):
        words = [f"w{drawn.randrange(10, 90)}" for _ in range(drawn.randrange(2, 9))]
        words.insert(drawn.randrange(len(words) + 1), f"w{number % 2}")
        found.append(Example(" ".join(words), ("no", "yes")[number % 2]))
    return found
