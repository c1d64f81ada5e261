"""Entities of BIO tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.models.text import bio_entities, is_bio
from hmi.models.text.words import Entity


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-X I-X O B-X", [Entity(0, 1, "X"), Entity(3, 3, "X")]),
        ("B-X B-X I-X", [Entity(0, 0, "X"), Entity(1, 2, "X")]),
        ("I-X I-X", [Entity(0, 1, "X")]),
        ("B-X I-Y I-Y", [Entity(0, 0, "X"), Entity(1, 2, "Y")]),
        ("B-X O I-X", [Entity(0, 0, "X"), Entity(2, 2, "X")]),
    ],
)
def test_entities_are_those_of_conlleval_in_any_order_of_tags(tags: str, expected: list[Entity]) -> None:
    assert bio_entities(tags.split()) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["O", "B-X", "I-X"], True),
        (["B-X"], True),
        (["O"], False),
        (["O", "X"], False),
        (["B-X", "B-"], False),
        ([], False),
    ],
)
def test_bio_is_recognised_by_the_labels(labels: list[str], expected: bool) -> None:
    assert is_bio(labels) is expected


@given(st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"])))
def test_every_labelled_word_is_in_one_entity(tags: list[str]) -> None:
    covered = [place for chunk in bio_entities(tags) for place in range(chunk.first, chunk.last + 1)]
    assert covered == [place for place, tag in enumerate(tags) if tag != "O"]
