"""Labelled text that cannot be trained on is refused, naming the example."""

from __future__ import annotations

import pytest

from hmi.errors import InvalidInput
from hmi.training.examples import Example, labels_of, majority_label


def test_labels_are_sorted_and_distinct_when_they_repeat() -> None:
    assert labels_of([Example("x", "b"), Example("y", "a"), Example("z", "b")]) == ("a", "b")


@pytest.mark.parametrize(
    ("examples", "reason"),
    [
        ([], "there are no examples"),
        ([Example("x", "a"), Example("y", "a")], "only 'a'"),
        ([Example("x", "a"), Example("  ", "b")], "example 2: its text is empty"),
        ([Example("x", ""), Example("y", "b")], "example 1: its label is empty"),
    ],
)
def test_examples_are_refused_when_no_classifier_can_be_made_of_them(examples: list[Example], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        labels_of(examples)


def test_majority_is_the_first_by_name_when_two_are_equal() -> None:
    assert majority_label([Example("x", "b"), Example("y", "a")]) == "a"
    assert majority_label([Example("x", "b"), Example("y", "a"), Example("z", "b")]) == "b"
