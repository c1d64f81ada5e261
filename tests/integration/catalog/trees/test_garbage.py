"""Artifacts of builds: registered before they are stored, deleted only if no version needs them."""

from __future__ import annotations

import threading

import pytest

from hmi.catalog import Database, garbage, trees
from hmi.errors import Conflict
from tests.integration.catalog.seeding import add_base, race


def _begin(database: Database, base_id: str, lease_seconds: float = 60) -> int:
    with database.session() as session:
        return trees.begin_build(session, base_id, lease_seconds)


def _announce(database: Database, base_id: str, number: int, domain: str, artifact: str) -> None:
    with database.session() as session:
        trees.register_artifact(session, base_id, number, domain, artifact)


def _clear(database: Database, artifact: str) -> list[str]:
    destroyed: list[str] = []
    with database.session() as session:
        garbage.delete_if_unneeded(session, artifact, destroyed.append)
    return destroyed


def test_a_build_names_what_it_stores_when_it_runs(database: Database) -> None:
    base = add_base(database)
    number = _begin(database, base.id)
    _announce(database, base.id, number, "general", "t1")
    _announce(database, base.id, number, "news", "t2")
    with database.session() as session:
        assert trees.running_builds(session) == {(base.id, number)}
        assert trees.versions(session, base.id)[0].tables == {"general": "t1", "news": "t2"}
        assert garbage.find_garbage(session) == []
    assert _clear(database, "t1") == []


def test_tables_are_cleared_when_the_build_that_named_them_failed(database: Database) -> None:
    base = add_base(database)
    number = _begin(database, base.id)
    _announce(database, base.id, number, "general", "t1")
    with database.session() as session:
        trees.fail_build(session, base.id, number, "no room")
        assert garbage.find_garbage(session) == [(base.id, number, ("t1",))]
        with pytest.raises(Conflict):
            trees.register_artifact(session, base.id, number, "news", "t2")
    assert _clear(database, "t1") == ["t1"]
    with database.session() as session:
        garbage.forget_tables(session, base.id, number)
        assert garbage.find_garbage(session) == []


@pytest.mark.parametrize("by", ["running", "published"])
def test_a_table_is_spared_when_another_base_models_version_names_it(database: Database, by: str) -> None:
    base, duplicate = add_base(database), add_base(database, "duplicate")  # the same weights under another name
    failed, other = _begin(database, base.id), _begin(database, duplicate.id)
    for each, number in ((base, failed), (duplicate, other)):
        _announce(database, each.id, number, "general", "shared")
    with database.session() as session:
        trees.fail_build(session, base.id, failed, "no room")
        if by == "published":
            trees.publish(session, duplicate.id, other, {"general": "shared"}, {})
    assert _clear(database, "shared") == []


def test_a_table_is_announced_after_it_was_cleared_when_both_happen_at_once(database: Database) -> None:
    base = add_base(database)
    number = _begin(database, base.id)
    destroying, announced = threading.Event(), threading.Event()
    order: list[str] = []

    def destroy(artifact: str) -> None:
        destroying.set()
        # The announcement has to wait for this transaction: half a second is no proof, but it fails where none waits.
        announced.wait(0.5)
        order.append("destroyed")

    def clear() -> None:
        with database.session() as session:
            garbage.delete_if_unneeded(session, "t1", destroy)

    def announce() -> None:
        assert destroying.wait(30)
        _announce(database, base.id, number, "general", "t1")
        order.append("announced")
        announced.set()

    assert race([clear, announce]) == [None, None]
    assert order == ["destroyed", "announced"]


def test_builds_fail_when_their_leases_expire(database: Database) -> None:
    base, other = add_base(database), add_base(database, "other", "b" * 64)
    _begin(database, base.id, -1)
    _begin(database, other.id)
    with database.session() as session:
        assert trees.running_builds(session) == {(other.id, 1)}
        assert trees.fail_expired_builds(session) == 1
        assert trees.fail_expired_builds(session) == 0
    with database.session() as session:
        assert trees.versions(session, base.id)[0].error == "the builder's lease ran out"


def test_a_builder_that_died_has_said_how_far_it_was(database: Database) -> None:
    base = add_base(database)
    number = _begin(database, base.id)
    progress = {"stage": "compute", "done": 1200, "total": 5000, "started_at": 1.0}
    with database.session() as session:
        assert trees.extend_build(session, base.id, number, 60, progress)
        assert trees.extend_build(session, base.id, number, -1)
        assert trees.versions(session, base.id)[0].progress == progress
        trees.fail_expired_builds(session)
    with database.session() as session:
        error = trees.versions(session, base.id)[0].error
    assert error == "the builder's lease ran out at compute, 1200 of 5000 rows"


def test_failed_versions_are_deleted_when_newer_ones_are_kept(database: Database) -> None:
    base = add_base(database)
    for outcome in ("fails", "a", "b", "fails", "c"):
        number = _begin(database, base.id)
        with database.session() as session:
            if outcome == "fails":
                trees.fail_build(session, base.id, number, "no room")
            else:
                trees.publish(session, base.id, number, {"general": outcome}, {})
    with database.session() as session:
        assert garbage.retire_versions(session, base.id) == ["a"]
        garbage.forget_tables(session, base.id, 2)
        assert [version.number for version in trees.versions(session, base.id)] == [5, 4, 3]
