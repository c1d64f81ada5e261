"""The tree of domains stays a tree."""

from __future__ import annotations

import pytest

from hmi.catalog import Database, domains
from hmi.catalog.registry.domains import list_domains, move_domain, parents
from hmi.errors import Conflict, InvalidInput, NotFound
from tests.integration.catalog.seeding import race


def _plant(database: Database) -> None:
    with database.session() as session:
        domains.create_domain(session, "reviews")
        domains.create_domain(session, "movies", "reviews")
        domains.create_domain(session, "products", "reviews")
        domains.create_domain(session, "news", "general")


def test_domains_know_their_parents_when_created(database: Database) -> None:
    _plant(database)
    with database.session() as session:
        assert parents(session) == {
            "general": None,
            "reviews": "general",
            "movies": "reviews",
            "products": "reviews",
            "news": "general",
        }
        assert [view.name for view in list_domains(session)] == ["general", "movies", "news", "products", "reviews"]
        assert domains.get_domain(session, "movies").parent == "reviews"


def test_a_domain_is_refused_when_its_name_or_parent_is_wrong(database: Database) -> None:
    _plant(database)
    with database.session() as session:
        with pytest.raises(Conflict):
            domains.create_domain(session, "movies", "news")
        with pytest.raises(NotFound, match="nowhere"):
            domains.create_domain(session, "films", "nowhere")
        with pytest.raises(InvalidInput):
            domains.create_domain(session, "Films")
        with pytest.raises(NotFound):
            domains.get_domain(session, "films")


def test_a_domain_takes_its_children_along_when_moved(database: Database) -> None:
    _plant(database)
    with database.session() as session:
        assert move_domain(session, "reviews", "news").parent == "news"
        assert parents(session)["movies"] == "reviews"


@pytest.mark.parametrize(("name", "parent"), [("reviews", "movies"), ("reviews", "reviews"), ("general", "news")])
def test_a_move_is_refused_when_it_would_close_a_circle(database: Database, name: str, parent: str) -> None:
    _plant(database)
    with database.session() as session, pytest.raises(InvalidInput):
        move_domain(session, name, parent)


def test_no_circle_is_closed_when_two_moves_race(database: Database) -> None:
    _plant(database)

    def move(name: str, parent: str) -> None:
        with database.session() as session:
            move_domain(session, name, parent)

    outcomes = race([lambda: move("movies", "products"), lambda: move("products", "movies")])
    assert sorted(outcome is None for outcome in outcomes) == [False, True]
    assert any(isinstance(outcome, InvalidInput) for outcome in outcomes)
