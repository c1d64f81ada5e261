"""The voices of the decoder's demonstration can be told apart, and nothing that is asked was taught."""

from __future__ import annotations

import pytest

from examples.demo.voices import ASKED, FACTS, VOICES, Voice


@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.tenant)
def test_what_a_voice_says_is_heard_as_this_voice_alone(voice: Voice) -> None:
    for _, fact in FACTS:
        said = voice.says(fact)
        assert [each.tenant for each in VOICES if each.is_heard_in(said)] == [voice.tenant]
        assert not any(each.is_heard_in(fact) for each in VOICES)


def test_nothing_that_is_asked_was_taught() -> None:
    assert not {question for question, _ in FACTS} & set(ASKED)
    assert len(set(ASKED)) == len(ASKED)
