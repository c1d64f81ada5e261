from __future__ import annotations

import pytest

from hmi.errors import Corrupt
from hmi.knowledge import ancestor_chains
from hmi.knowledge.domains import children_of
from tests.unit.knowledge.tables import PARENTS


def test_an_ancestor_chain_leads_from_the_domain_to_the_root() -> None:
    chains = ancestor_chains(PARENTS)
    assert chains["movies"] == ("movies", "reviews", "general")
    assert chains["general"] == ("general",)
    assert set(chains) == set(PARENTS)


def test_ancestor_chains_do_not_depend_on_the_order_of_domains() -> None:
    assert ancestor_chains(dict(reversed(list(PARENTS.items())))) == ancestor_chains(PARENTS)


def test_no_domains_have_no_ancestor_chains() -> None:
    assert ancestor_chains({}) == {}


def test_children_are_sorted_by_name() -> None:
    assert children_of(PARENTS)["general"] == ["news", "reviews"]
    assert children_of(PARENTS)["movies"] == []


@pytest.mark.parametrize(
    ("parents", "reason"),
    [
        ({"a": "b", "b": "c", "c": "b"}, "its own ancestor: b > c > b"),
        ({"a": "a"}, "its own ancestor: a > a"),
        ({"a": None, "b": "x"}, "b lies under x"),
        ({"a": None, "b": None}, "more than one root: a, b"),
    ],
)
def test_parents_are_refused_when_they_are_no_tree(parents: dict[str, str | None], reason: str) -> None:
    with pytest.raises(Corrupt, match=reason):
        ancestor_chains(parents)
