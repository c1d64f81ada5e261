"""The thread that extends leases, the reports of nodes, and the claim of a rebuild's period."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import structlog

from hmi.catalog import JobMessage, nodes, shards
from hmi.errors import LeaseLost, Transient
from tests.runtimes import running
from tests.waiting import wait_until
from tests.worksite import Worksite, line
from worker.lifecycle import Lease, LeaseKeeper
from worker.runtime import Runtime
from worker.trees import claim_period


def claimed(site: Worksite, lease_seconds: float) -> JobMessage:
    site.submit("acme", [line("a", "acme/sentiment")])
    (message,) = site.queue()
    with site.database.session() as session:
        shards.claim(session, message.job_id, message.attempt, owner="test", lease_seconds=lease_seconds)
    return message


def hold(keeper: LeaseKeeper, message: JobMessage) -> AbstractContextManager[Lease]:
    return keeper.hold(message.job_id, lambda session, seconds: bool(shards.extend(session, [message], seconds)))


def test_lease_is_kept_when_work_takes_longer_than_it_lasts(site: Worksite) -> None:
    message = claimed(site, lease_seconds=1)
    keeper = LeaseKeeper(site.database, lease_seconds=1)
    keeper.start()
    try:
        with hold(keeper, message) as lease:
            held_since = time.monotonic()
            wait_until(lambda: time.monotonic() - held_since > 2)
            lease.check()
            with site.database.session() as session:
                assert shards.expire_leases(session) == 0
    finally:
        keeper.stop()


def test_only_the_lost_lease_is_marked_when_one_of_two_goes(site: Worksite) -> None:
    first, second = claimed(site, 60), claimed(site, 60)
    keeper = LeaseKeeper(site.database, lease_seconds=60)
    with hold(keeper, first) as lost, hold(keeper, second) as kept:
        site.lapse(first.job_id)
        with site.database.session() as session:
            shards.expire_leases(session)
        keeper.extend()
        kept.check()
        with pytest.raises(LeaseLost, match=first.job_id):
            lost.check()
    assert keeper.held() == []


def test_no_loss_is_reported_when_the_work_ended_while_leases_were_extended(
    site: Worksite, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = LeaseKeeper(site.database, lease_seconds=60)
    held = hold(keeper, claimed(site, 60))

    def end_meanwhile(*_: object) -> set[str]:
        held.__exit__(None, None, None)
        return set()

    monkeypatch.setattr(shards, "extend", end_meanwhile)
    held.__enter__()
    with structlog.testing.capture_logs() as logs:
        keeper.extend()
    assert logs == []


def test_no_lease_is_lost_when_the_database_does_not_answer(site: Worksite, monkeypatch: pytest.MonkeyPatch) -> None:
    message = claimed(site, lease_seconds=3)
    failures = []

    def fail(*_: object) -> set[str]:
        failures.append(1)
        raise Transient("no answer")

    keeper = LeaseKeeper(site.database, lease_seconds=0.3)
    with monkeypatch.context() as patched, hold(keeper, message) as lease:
        patched.setattr(shards, "extend", fail)
        keeper.start()
        try:
            wait_until(lambda: len(failures) >= 3)
            lease.check()
        finally:
            keeper.stop()


def test_node_reports_its_memory_and_trees(site: Worksite, runtime: Runtime) -> None:
    runtime.load_bases()
    runtime.report()
    with site.database.session(read_only=True) as session:
        (node,) = nodes.list_nodes(session, 60)
    assert (node.name, node.device) == ("test@here", "cpu")
    assert node.stats["host"]["entries"] == 0
    assert [use["number"] for use in node.stats["trees"]] == [0]


def test_background_work_runs_when_the_runtime_is_started(tmp_path: Path, database_url: str, redis_url: str) -> None:
    site = Worksite(tmp_path / "data", database_url, redis_url, flush_seconds=0.1)
    site.add_base()
    with running(site) as runtime:
        runtime.start()

        def reported() -> bool:
            with site.database.session(read_only=True) as session:
                return bool(nodes.list_nodes(session, 60))

        wait_until(reported)
    site.close()


def test_one_rebuild_a_period_when_several_schedulers_ask(site: Worksite) -> None:
    # A period so long that the test does not cross its end.
    claims = [claim_period(site.database, 1e8) for _ in range(3)]
    assert claims == [True, False, False]
    # Other periods have other numbers: these stand for later ones, however fast the machine is.
    assert claim_period(site.database, 1e-3)
    assert claim_period(site.database, 1e-5)
