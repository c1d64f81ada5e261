"""The demonstration's cast, and the dealing of sentences to it."""

from __future__ import annotations

import pytest

from examples.demo import DOMAINS, FULL, QUICK, Part, Sentence, thinned
from examples.demo.tenants import BASES, EXACT_HOSTING, Scale, portions
from examples.demo.text import SENTENCE_FILES


def sentences(count: int) -> dict[str, list[Sentence]]:
    return {domain: [Sentence(f"{domain} {n}", "positive") for n in range(count)] for domain in SENTENCE_FILES}


@pytest.mark.parametrize("scale", [FULL, QUICK])
def test_cast_covers_what_is_to_be_shown(scale: Scale) -> None:
    tenants = scale.tenants
    assert len({each.name for each in tenants}) == len(tenants)
    assert {each.domain for each in tenants} == set(SENTENCE_FILES) <= set(DOMAINS)
    assert {each.base for each in tenants} == set(BASES)
    assert {each.kind for each in tenants} == {"bottleneck", "lora"}


def test_full_cast_has_every_kind_and_rank() -> None:
    assert len(FULL.tenants) >= 12
    ranks = {("bottleneck", 16), ("bottleneck", 48), ("lora", 4), ("lora", 8), ("lora", 16)}
    assert {(each.kind, each.rank) for each in FULL.tenants} == ranks
    assert 1 < sum(each.base == EXACT_HOSTING for each in FULL.tenants) < len(FULL.tenants) / 2


def test_no_sentence_is_dealt_twice_when_tenants_share_a_domain() -> None:
    dealt = portions(sentences(400), FULL)
    assert set(dealt) == {each.name for each in FULL.tenants}
    given = [each.text for portion in dealt.values() for each in (*portion.training, *portion.test)]
    assert len(given) == len(set(given))
    for portion in dealt.values():
        assert {each.part for each in portion.training} == {Part.TRAIN}
        assert {each.part for each in portion.test} == {Part.TEST}


def test_portions_are_cut_when_a_scale_says_so() -> None:
    dealt = portions(sentences(4000), QUICK)
    assert {len(portion.training) for portion in dealt.values()} == {QUICK.most_training}
    assert {len(portion.test) for portion in dealt.values()} == {QUICK.most_test}


def test_thinning_reaches_from_beginning_to_end() -> None:
    every = [Sentence(str(number), "positive") for number in range(100)]
    assert [each.text for each in thinned(every, 4)] == ["0", "25", "50", "75"]
    assert len(thinned(every, 1000)) == 100
