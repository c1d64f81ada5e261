"""Versions of a knowledge tree: one builder at a time, one pointer, the last ones kept."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from hmi.catalog import Database, HitCounts, TreeStatus, TreeVersion, domains, garbage, trees
from hmi.errors import Conflict, NotFound
from tests.integration.catalog.seeding import add_base, race


def _build(database: Database, base_id: str, tables: dict[str, str]) -> int:
    with database.session() as session:
        number = trees.begin_build(session, base_id, 60)
    with database.session() as session:
        trees.publish(session, base_id, number, tables, {"general": {"entries": 3}})
    return number


def _served(database: Database, base_id: str) -> int | None:
    with database.session(read_only=True) as session:
        tree = trees.published(session, base_id)
    return tree.number if tree else None


def test_a_tree_is_served_when_published(database: Database) -> None:
    base = add_base(database)
    with database.session() as session:
        domains.create_domain(session, "news")
        assert trees.published(session, base.id) is None
        number = trees.begin_build(session, base.id, 60)
        assert trees.published(session, base.id) is None
        trees.publish(session, base.id, number, {"general": "t1"}, {"x": 1})
        assert trees.published(session, base.id) == trees.PublishedTree(1, {"general": "t1"})
    assert _build(database, base.id, {"general": "t2"}) == 2
    with database.session() as session:
        found = trees.versions(session, base.id)
    assert [(version.number, version.status, version.lease_until) for version in found] == [
        (2, TreeStatus.READY, None),
        (1, TreeStatus.READY, None),
    ]
    assert (found[0].published_at or 0) >= found[0].created_at


def test_one_builder_is_let_in_when_several_begin_at_once(database: Database) -> None:
    base, other = add_base(database), add_base(database, "other", "b" * 64)

    def begin() -> int:
        with database.session() as session:
            return trees.begin_build(session, base.id, 60)

    outcomes = race([begin] * 4)
    refused = [outcome.code for outcome in outcomes if isinstance(outcome, Conflict)]
    assert refused == ["build_in_progress"] * 3
    assert outcomes.count(1) == 1
    with database.session() as session:
        assert trees.begin_build(session, other.id, 60) == 1  # another base model's tree


def test_the_database_itself_refuses_when_a_second_build_is_written(database: Database) -> None:
    base = add_base(database)
    with database.session() as session:
        trees.begin_build(session, base.id, 60)
    row = {"base_id": base.id, "number": 9, "status": TreeStatus.BUILDING, "tables": {}, "report": {}}
    with pytest.raises(Conflict), database.session() as session:
        session.add(TreeVersion(**row, created_at=0.0))


def test_a_dead_builder_is_followed_and_cannot_publish_when_its_lease_ran_out(database: Database) -> None:
    base = add_base(database)
    with database.session() as session:
        assert trees.begin_build(session, base.id, -1) == 1
    with database.session() as session:
        assert trees.begin_build(session, base.id, 60) == 2
    with database.session() as session:
        assert not trees.extend_build(session, base.id, 1, 60)
        assert not trees.fail_build(session, base.id, 1, "late")
        with pytest.raises(Conflict):
            trees.publish(session, base.id, 1, {}, {})
    assert _served(database, base.id) is None
    with database.session() as session:
        assert trees.extend_build(session, base.id, 2, 60)
        trees.publish(session, base.id, 2, {}, {})
        with pytest.raises(Conflict):
            trees.publish(session, base.id, 2, {}, {})
    with database.session() as session:
        errors = {version.number: version.error for version in trees.versions(session, base.id)}
    assert errors == {1: "the builder's lease ran out", 2: None}


def test_the_old_version_serves_when_a_build_fails(database: Database) -> None:
    base = add_base(database)
    _build(database, base.id, {"general": "t1"})
    with database.session() as session:
        number = trees.begin_build(session, base.id, 60)
        assert trees.fail_build(session, base.id, number, "disk full\0")
    assert _served(database, base.id) == 1
    assert _build(database, base.id, {"general": "t3"}) == 3


def test_the_version_before_serves_when_rolled_back(database: Database) -> None:
    base = add_base(database)
    _build(database, base.id, {"general": "t1"})
    with database.session() as session:
        trees.fail_build(session, base.id, trees.begin_build(session, base.id, 60), "x")
    _build(database, base.id, {"general": "t3"})
    with database.session() as session:
        assert trees.rollback(session, base.id) == 1
    assert _served(database, base.id) == 1
    with database.session() as session, pytest.raises(Conflict):
        trees.rollback(session, base.id)
    assert _build(database, base.id, {"general": "t4"}) == 4


def test_a_running_build_fails_when_the_tree_is_rolled_back(database: Database) -> None:
    base = add_base(database)
    for digest in ("t1", "t2"):
        _build(database, base.id, {"general": digest})
    with database.session() as session:
        number = trees.begin_build(session, base.id, 60)
        trees.rollback(session, base.id)
    with database.session() as session:
        assert trees.versions(session, base.id)[0].error == "the tree was rolled back to version 1"
        with pytest.raises(Conflict):
            trees.publish(session, base.id, number, {}, {})
    assert _served(database, base.id) == 1


def test_the_schedule_waits_when_an_earlier_version_was_chosen(database: Database) -> None:
    base = add_base(database)
    _build(database, base.id, {"general": "t1"})
    _build(database, base.id, {"general": "t2"})
    with database.session() as session:
        assert not trees.is_rolled_back(session, base.id)
        trees.rollback(session, base.id)
        assert trees.is_rolled_back(session, base.id)
    _build(database, base.id, {"general": "t3"})  # by hand
    with database.session() as session:
        assert not trees.is_rolled_back(session, base.id)


def test_the_version_that_was_chosen_is_gone_back_to_when_its_successor_is_bad_too(database: Database) -> None:
    base = add_base(database)
    _build(database, base.id, {"general": "t1"})
    _build(database, base.id, {"general": "bad"})
    with database.session() as session:
        assert trees.rollback(session, base.id) == 1
    _build(database, base.id, {"general": "bad too"})
    with database.session() as session:
        assert [version.number for version in garbage.retired_versions(session, base.id)] == [2]
        assert trees.rollback(session, base.id) == 1


def test_only_unneeded_tables_are_garbage_when_versions_retire(database: Database) -> None:
    base, other = add_base(database), add_base(database, "other", "b" * 64)
    _build(database, other.id, {"general": "shared-with-other"})
    for number, tables in enumerate(
        [
            {"general": "g1", "news": "shared-with-other"},
            {"general": "g1", "news": "n2"},
            {"general": "g3", "news": "n2"},
            {"general": "g4", "news": "n2"},
        ],
        start=1,
    ):
        assert _build(database, base.id, tables) == number
    with database.session() as session:
        general = domains.get_domain(session, "general")
        trees.record_hits(session, {(base.id, 1, general.id): HitCounts(lookups=1, hits=1)})
        assert [version.number for version in garbage.retired_versions(session, base.id)] == [2, 1]
    with database.session() as session:
        assert garbage.retire_versions(session, base.id) == ["g1"]
    with database.session() as session:
        for number in (0, 1, 4):  # what a worker looked up in a version before it heard of the next comes late
            trees.record_hits(session, {(base.id, number, general.id): HitCounts(lookups=1, hits=1)})
    with database.session() as session:
        assert garbage.retire_versions(session, base.id) == []
        # After a crash here the rows still name the tables to delete.
        found = garbage.find_garbage(session)
        assert found == [(base.id, 1, ("g1", "shared-with-other")), (base.id, 2, ("g1", "n2"))]
    with database.session() as session:
        destroyed = list[str]()
        for _, number, named in found:
            for artifact in named:
                garbage.delete_if_unneeded(session, artifact, destroyed.append)
            garbage.forget_tables(session, base.id, number)
        assert set(destroyed) == {"g1"}
        assert list(session.scalars(select(TreeVersion.number).where(TreeVersion.base_id == base.id))) == [3, 4]
        assert trees.hit_counts(session, base.id, 1) == {}
    assert _served(database, base.id) == 4


def test_the_served_version_is_kept_when_newer_ones_exist(database: Database) -> None:
    base = add_base(database)
    for digest in ("g1", "g2"):
        _build(database, base.id, {"general": digest})
    with database.session() as session:
        assert trees.rollback(session, base.id) == 1
        assert [version.number for version in garbage.retired_versions(session, base.id, keep=1)] == [2]
        assert garbage.retired_versions(session, base.id) == []


def test_lookups_add_up_when_workers_report_at_once(database: Database) -> None:
    base = add_base(database)
    with database.session() as session:
        news = domains.create_domain(session, "news")

    def report() -> None:
        for _ in range(5):
            with database.session() as session:
                trees.record_hits(session, {(base.id, 0, news.id): HitCounts(lookups=10, hits=7)})

    assert race([report] * 4) == [None] * 4
    with database.session() as session:
        assert trees.hit_counts(session, base.id, 0) == {"news": trees.HitCounts(200, 140)}
        assert trees.hit_counts(session, base.id, 1) == {}


def test_a_build_is_refused_when_the_base_is_unknown(database: Database) -> None:
    with pytest.raises(NotFound), database.session() as session:
        trees.begin_build(session, "base_unknown", 60)


def test_requests_share_the_next_build_when_one_runs(database: Database) -> None:
    base = add_base(database)
    with database.session() as session:
        assert trees.requested_version(session, base.id) is None
        assert trees.begin_build(session, base.id, 60) == 1

    def request() -> int:
        with database.session() as session:
            return trees.request_rebuild(session, base.id)

    assert race([request] * 4) == [2] * 4
    with database.session() as session:
        assert trees.open_requests(session) == []  # a build runs
        trees.publish(session, base.id, 1, {}, {})
        assert trees.requested_version(session, base.id) == 2
        assert trees.open_requests(session) == [base.name]
    assert _build(database, base.id, {"general": "t2"}) == 2
    with database.session() as session:
        assert trees.requested_version(session, base.id) is None
        assert trees.open_requests(session) == []


def test_a_request_is_answered_by_a_later_build_when_its_own_is_lost(database: Database) -> None:
    base = add_base(database)
    with database.session() as session:
        assert trees.request_rebuild(session, base.id) == 1
        assert trees.begin_build(session, base.id, -1) == 1
    with database.session() as session:
        assert trees.open_requests(session) == [base.name]
        assert trees.begin_build(session, base.id, 60) == 2
        assert trees.requested_version(session, base.id) == 1
        trees.publish(session, base.id, 2, {}, {})
        assert trees.requested_version(session, base.id) is None


def test_a_request_is_closed_when_its_builds_fail_too_often(database: Database) -> None:
    base = add_base(database)
    with database.session() as session:
        assert trees.request_rebuild(session, base.id) == 1
        for _ in range(3):
            assert trees.requested_version(session, base.id) == 1
            trees.fail_build(session, base.id, trees.begin_build(session, base.id, 60), "no room")
        assert trees.requested_version(session, base.id) is None
        # Neither a scheduled build nor one that is stopped opens it again.
        number = trees.begin_build(session, base.id, 60)
        assert trees.requested_version(session, base.id) is None
        trees.fail_build(session, base.id, number, "stopped", count_failure=False)
        assert trees.requested_version(session, base.id) is None


def test_nothing_can_be_requested_of_an_unknown_base(database: Database) -> None:
    with database.session() as session, pytest.raises(NotFound):
        trees.request_rebuild(session, "base_unknown")
