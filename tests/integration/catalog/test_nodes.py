"""Workers' signs of life, and ticks that run once."""

from __future__ import annotations

from sqlalchemy import func, select

from hmi.catalog import Database, nodes
from hmi.catalog.nodes import list_nodes, report_node
from hmi.catalog.schema import ScheduleTick, WorkerNode
from tests.integration.catalog.seeding import race


def test_a_worker_keeps_its_start_when_the_same_process_reports(database: Database) -> None:
    found = []
    for pid, stats in ((1, {"adapters": 1}), (1, {"adapters": 2}), (2, {})):
        with database.session() as session:
            report_node(session, "hmi-cpu@host", device="cpu", pid=pid, stats=stats)
        with database.session() as session:
            found += list_nodes(session, 60)
    first, same, restarted = found
    assert (same.stats, same.started_at) == ({"adapters": 2}, first.started_at)
    assert first.seen_at < same.seen_at < restarted.seen_at
    assert restarted.started_at > first.started_at


def test_a_worker_is_not_listed_when_it_was_not_seen_for_long(database: Database) -> None:
    with database.session() as session:
        for name in ("b", "a"):
            report_node(session, name, device="cpu", pid=1, stats={})
        session.flush()
        session.add(WorkerNode(name="old", device="cpu", pid=1, stats={}, started_at=0.0, seen_at=0.0))
    with database.session() as session:
        assert [node.name for node in list_nodes(session, 60)] == ["a", "b"]


def test_a_tick_runs_once_when_schedulers_race(database: Database) -> None:
    def claim() -> bool:
        with database.session() as session:
            return nodes.claim_tick(session, "dispatch", 7)

    assert sorted(map(str, race([claim] * 5))) == ["False"] * 4 + ["True"]
    with database.session() as session:
        assert nodes.claim_tick(session, "dispatch", 8)
        assert nodes.claim_tick(session, "reconcile", 7)
        assert not nodes.claim_tick(session, "dispatch", 7)


def test_old_ticks_are_deleted_when_new_ones_are_claimed(database: Database) -> None:
    with database.session() as session:
        for tick in range(0, 1000, 50):
            assert nodes.claim_tick(session, "dispatch", tick)
        assert session.scalar(select(func.count()).select_from(ScheduleTick)) == 3
