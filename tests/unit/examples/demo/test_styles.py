"""The styles of the decoder story differ, and its questions are new."""

from __future__ import annotations

import pytest

from examples.demo.styles import FACTS, QUESTIONS, STYLES, Style


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.tenant)
def test_text_in_a_style_matches_this_style_alone(style: Style) -> None:
    for _, fact in FACTS:
        said = style.says(fact)
        assert [each.tenant for each in STYLES if each.matches(said)] == [style.tenant]
        assert not any(each.matches(fact) for each in STYLES)


def test_questions_are_not_in_the_training() -> None:
    assert not {question for question, _ in FACTS} & set(QUESTIONS)
    assert len(set(QUESTIONS)) == len(QUESTIONS)
