"""Domains that are moved, created or given a delta on a running system: lookups use only tables of their functions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import structlog
from numpy.typing import NDArray

from hmi.catalog import bases, deltas, domains, models, tenants, trees
from hmi.knowledge import Keys, ngrams
from hmi.knowledge.lookup import KnowledgeTree
from tests.rebuilding import base_artifact, base_id, count, last_version, published, set_delta
from tests.runtimes import run_waiting
from tests.worksite import Worksite, line, small_spec
from worker.runtime import Runtime
from worker.trees import rebuild, rebuild_all

TOLERANCE = 0.3  # wide enough for the stub's deltas, which move rows by a tenth


@pytest.fixture
def site(site: Worksite) -> Worksite:
    """general > reviews > (movies, books), general > news."""
    site.settings = site.settings.model_copy(update={"tree_tolerance": TOLERANCE})
    site.add_domain("reviews")
    site.add_domain("movies", "reviews")
    site.add_domain("books", "reviews")
    site.add_domain("news")
    return site


def move(site: Worksite, domain: str, parent: str) -> None:
    with site.database.session() as session:
        domains.move_domain(session, domain, parent)


def tree_in_use(runtime: Runtime, site: Worksite) -> KnowledgeTree:
    """The tree that a refreshed worker looks up in."""
    return runtime.source.tree(base_artifact(site))


def fresh(runtime: Runtime, site: Worksite, keys: Keys, delta: str | None = None) -> NDArray[np.float32]:
    return runtime.engine.compute_rows(base_artifact(site), np.sort(keys), delta, fresh=True)


def hits(tree: KnowledgeTree, domain: str, keys: Keys) -> int:
    return int(tree.lookup(domain, np.sort(keys)).hit.sum())


def test_tables_of_a_domain_are_no_longer_used_when_its_delta_changes(site: Worksite, runtime: Runtime) -> None:
    keys = count(site, "reviews", [5, 9, 20])
    first = set_delta(site, "reviews", b"first")
    rebuild(runtime, "base")
    tree = tree_in_use(runtime, site)
    assert hits(tree, "movies", keys) == 3
    np.testing.assert_allclose(tree.lookup("movies", np.sort(keys)).rows, fresh(runtime, site, keys, first), atol=0.03)
    second = set_delta(site, "reviews", b"second")
    with structlog.testing.capture_logs() as logs:
        runtime.load_bases()
        runtime.refresh_trees()
        runtime.refresh_trees()
    assert hits(tree_in_use(runtime, site), "movies", keys) == 0
    assert [each["domain"] for each in logs if each["event"] == "table_not_used"] == ["reviews"]
    rebuild(runtime, "base")
    assert last_version(site).report["domains"]["reviews"]["copied"] == 0
    tree = tree_in_use(runtime, site)
    np.testing.assert_allclose(tree.lookup("movies", np.sort(keys)).rows, fresh(runtime, site, keys, second), atol=0.03)


def test_tables_of_the_base_are_used_again_when_a_delta_is_removed(site: Worksite, runtime: Runtime) -> None:
    keys = count(site, "reviews", [5, 9, 20])
    rebuild(runtime, "base")
    set_delta(site, "reviews", b"first")
    assert hits(tree_in_use(runtime, site), "reviews", keys) == 0
    with site.database.session() as session:
        deltas.remove_delta(session, base_id(site), "reviews")
    assert hits(tree_in_use(runtime, site), "reviews", keys) == 3


def test_tables_of_another_base_are_not_used_when_the_catalog_names_them(site: Worksite, runtime: Runtime) -> None:
    """New weights are another base model; a table of the old ones is recognised by its function's digest."""
    keys = count(site, "reviews", [5, 9])
    rebuild(runtime, "base")
    tables = published(site).tables
    other = site.add_base("other", dataclasses.replace(small_spec(), heads=4))
    with site.database.session() as session:
        mine = bases.get_base(session, "other")
        trees.publish(session, mine.id, trees.begin_build(session, mine.id, 60), tables, {})
    tree = runtime.source.tree(other)
    assert tree.tables == {}
    assert set(runtime.source.missing()[other]) == set(tables)
    assert hits(tree, "reviews", keys) == 0
    rebuild(runtime, "other")
    assert hits(runtime.source.tree(other), "general", ngrams.unigrams(small_spec().vocab_size)) > 0
    assert other not in runtime.source.missing()


def test_schedule_rebuilds_at_once_when_a_delta_is_newer_than_the_tree(site: Worksite, runtime: Runtime) -> None:
    rebuild(runtime, "base")
    rebuild_all(runtime)
    assert published(site).number == 1
    set_delta(site, "reviews", b"first")
    rebuild_all(runtime)
    assert published(site).number == 2


def test_a_moved_domain_inherits_from_its_new_parent_when_nothing_is_rebuilt(site: Worksite, runtime: Runtime) -> None:
    own, old, new = count(site, "movies", [5]), count(site, "reviews", [9, 20]), count(site, "news", [30, 31, 32])
    rebuild(runtime, "base")
    runtime.load_bases()
    assert [hits(tree_in_use(runtime, site), "movies", keys) for keys in (own, old, new)] == [1, 2, 0]
    move(site, "movies", "news")
    runtime.refresh_trees()
    assert [use.number for use in runtime.engine.stats().trees] == [1]
    assert [hits(tree_in_use(runtime, site), "movies", keys) for keys in (own, old, new)] == [1, 0, 3]
    site.add_model("acme", "films", domain="movies")
    batch = site.submit("acme", [line("a", "acme/films", [[29, 30, 31, 32, 33]])])
    run_waiting(runtime, site)
    assert len(site.results("acme", batch).answers) == 1


def test_a_moved_domains_own_table_is_left_out_when_its_delta_was_its_parents(site: Worksite, runtime: Runtime) -> None:
    own = count(site, "movies", [5, 9])
    delta = set_delta(site, "reviews", b"first")
    rebuild(runtime, "base")
    np.testing.assert_allclose(
        tree_in_use(runtime, site).lookup("movies", np.sort(own)).rows, fresh(runtime, site, own, delta), atol=0.03
    )
    move(site, "movies", "news")  # without a delta
    tree = tree_in_use(runtime, site)
    assert "movies" not in tree.tables
    assert hits(tree, "movies", own) == 0
    move(site, "movies", "reviews")
    assert hits(tree_in_use(runtime, site), "movies", own) == 2


def test_aliases_are_misses_when_their_function_is_no_ancestors_any_more(site: Worksite, runtime: Runtime) -> None:
    keys = count(site, "general", [5, 9, 20])
    count(site, "movies", [5, 9, 20])
    own = set_delta(site, "movies", b"movies' own")
    rebuild(runtime, "base")
    assert last_version(site).report["domains"]["movies"]["aliases"] == 3
    tree = tree_in_use(runtime, site)
    found = tree.lookup("movies", np.sort(keys))
    assert found.hit.all()
    assert found.inherited.all()
    off = np.linalg.norm(found.rows - fresh(runtime, site, keys, own), axis=1)
    assert (off <= (TOLERANCE + 0.05) * np.linalg.norm(found.rows, axis=1)).all()
    move(site, "movies", "news")  # above it is the base model's function as before
    assert hits(tree_in_use(runtime, site), "movies", keys) == 3
    set_delta(site, "news", b"of the news")  # and now another's
    assert hits(tree_in_use(runtime, site), "movies", keys) == 0
    with site.database.session() as session:
        deltas.remove_delta(session, base_id(site), "news")
    assert hits(tree_in_use(runtime, site), "movies", keys) == 3


def test_a_new_domain_inherits_with_its_parents_delta_when_nothing_is_rebuilt(site: Worksite, runtime: Runtime) -> None:
    keys = count(site, "reviews", [5, 9, 20])
    delta = set_delta(site, "reviews", b"first")
    rebuild(runtime, "base")
    runtime.load_bases()
    site.add_domain("essays", "books")
    site.add_model("acme", "essays", domain="essays")
    with site.database.session(read_only=True) as session:
        principal = tenants.principal_of(session, tenants.get_tenant(session, "acme").id)
        assert models.resolve(session, ["acme/essays"], principal)["acme/essays"].delta == delta
    tree = tree_in_use(runtime, site)
    np.testing.assert_allclose(tree.lookup("essays", np.sort(keys)).rows, fresh(runtime, site, keys, delta), atol=0.03)
    batch = site.submit("acme", [line("a", "acme/essays", [[4, 5, 6]])])
    run_waiting(runtime, site)
    assert len(site.results("acme", batch).answers) == 1
    runtime.flusher.flush()
