"""The dev set is chosen by the text alone, and has only labels of the training set."""

from __future__ import annotations

import hashlib

import pytest

from hmi.errors import InvalidInput
from hmi.training.data import (
    AnyExample,
    Example,
    MultiLabelExample,
    PairExample,
    Span,
    TaggedExample,
    kind_of,
    require_known_labels,
    split_dev,
    without_texts,
)


def word_tags(*tags: str) -> tuple[Span, ...]:
    return tuple(Span(2 * place, 2 * place + 1, tag) for place, tag in enumerate(tags))


def some(count: int) -> list[AnyExample]:
    return [Example(f"text {number}", "ab"[number % 2]) for number in range(count)]


def test_dev_set_has_about_its_share_and_no_text_of_the_training_set() -> None:
    examples = some(2000) * 2
    learnt, judging = split_dev(examples, 0.1)
    assert 0.08 < len(judging) / len(examples) < 0.12
    assert len(learnt) + len(judging) == len(examples)
    assert not {each.text for each in learnt} & {each.text for each in judging}
    again, same = split_dev(list(reversed(examples)), 0.1)
    assert set(judging) == set(same)
    assert set(learnt) == set(again)


def test_share_is_kept_when_the_text_was_cut_by_its_hash_before() -> None:
    """The demonstration's own parts are chosen by the first byte of SHA-256."""
    examples = [each for each in some(4000) if hashlib.sha256(each.text.encode()).digest()[0] < 179]
    _, judging = split_dev(examples, 0.1)
    assert 0.08 < len(judging) / len(examples) < 0.12


def test_rare_label_stays_in_the_training_set() -> None:
    examples = [*some(2000), *(Example(f"rare {number}", f"r{number}") for number in range(50))]
    learnt, judging = split_dev(examples, 0.3)
    assert {each.label for each in learnt if isinstance(each, Example)} == {"a", "b", *(f"r{n}" for n in range(50))}
    assert all(isinstance(each, Example) and each.label in "ab" for each in judging)


@pytest.mark.parametrize("share", [0, 0.1])
def test_dev_set_is_empty_when_it_would_be_tiny(share: float) -> None:
    examples = some(100)
    assert split_dev(examples, share) == (examples, [])


def test_texts_of_the_dev_set_are_not_trained_on() -> None:
    examples = some(10)
    assert without_texts(some(3), [*examples, *examples]) == [*examples[3:], *examples[3:]]
    with pytest.raises(InvalidInput, match="nothing to learn from"):
        without_texts(examples, examples[:4])


@pytest.mark.parametrize(
    ("judging", "learnt"),
    [
        (Example("x", "c"), Example("y", "a")),
        (MultiLabelExample("x", ("a", "c")), MultiLabelExample("y", ("a",))),
        (TaggedExample("x", (Span(0, 1, "c"),), True), TaggedExample("y", (Span(0, 1, "a"),), True)),
        (TaggedExample("x", (Span(0, 1, "c"),), False), TaggedExample("y", (Span(0, 1, "B-a"),), False)),
        (TaggedExample("x", (Span(0, 1, "c"),), True), TaggedExample("y z", word_tags("b", "c"), False)),
    ],
)
def test_dev_set_is_refused_when_the_training_set_lacks_its_label(judging: AnyExample, learnt: AnyExample) -> None:
    with pytest.raises(InvalidInput, match="lacks: 'c'"):
        require_known_labels([judging], [learnt])


@pytest.mark.parametrize(
    "judging",
    [
        TaggedExample("x", (Span(0, 1, "I-a"),), False),
        TaggedExample("x", (Span(0, 1, "O"),), False),
        TaggedExample("x", (Span(0, 1, "a"),), True),
        TaggedExample("x", (), True),
    ],
)
@pytest.mark.parametrize(
    "learnt", [TaggedExample("y", (Span(0, 1, "B-a"),), False), TaggedExample("y", (Span(0, 1, "a"),), True)]
)
def test_entities_evaluate_in_every_notation(judging: AnyExample, learnt: AnyExample) -> None:
    require_known_labels([judging], [learnt])


@pytest.mark.parametrize(
    ("examples", "reason"),
    [
        ([], "there are no examples"),
        ([Example("x", "a"), Example("  ", "b")], "example 2: its text is empty"),
        ([PairExample("x", "y", " ")], "example 1: its text is empty"),
        ([Example("x", "a"), Example("\ud800", "b")], "example 2: its text holds half"),
        ([Example("x", "a"), MultiLabelExample("y", ())], "example 2 is for multi_label, the first one for class"),
    ],
)
def test_examples_are_refused_when_their_tasks_differ(examples: list[AnyExample], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        kind_of(examples)
