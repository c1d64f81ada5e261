"""The tenants of the demonstration, and their sentences."""

from __future__ import annotations

import pytest

from examples.data import DOMAINS, Part, Sentence
from examples.data.sentences import SENTENCE_FILES
from examples.demo.tenants import BASES, EXACT, FULL, QUICK, Scale, portions


def sentences(count: int) -> dict[str, list[Sentence]]:
    return {domain: [Sentence(f"{domain} {n}", "positive") for n in range(count)] for domain in SENTENCE_FILES}


@pytest.mark.parametrize("scale", [FULL, QUICK])
def test_tenants_cover_all_domains_bases_and_kinds(scale: Scale) -> None:
    tenants = scale.tenants
    assert len({each.name for each in tenants}) == len(tenants)
    assert {each.domain for each in tenants} == set(SENTENCE_FILES) <= set(DOMAINS)
    assert {each.base for each in tenants} == set(BASES)
    assert {each.kind for each in tenants} == {"bottleneck", "lora"}


def test_full_scale_has_every_kind_and_rank() -> None:
    assert len(FULL.tenants) == 8
    ranks = {("bottleneck", 16), ("bottleneck", 48), ("lora", 4), ("lora", 8), ("lora", 16)}
    assert {(each.kind, each.rank) for each in FULL.tenants} == ranks
    assert 1 < sum(each.base == EXACT for each in FULL.tenants) < len(FULL.tenants) / 2


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
