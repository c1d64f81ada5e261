"""A requested rebuild contains every count that was committed before the request, whatever runs or fails meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from sqlalchemy import update

from hmi.catalog import TreeStatus, TreeVersion, trees
from hmi.errors import Cancelled
from hmi.jobs import TaskName
from tests.rebuilding import base_artifact, base_id, count, during_compute, last_version, published, set_delta
from tests.runtimes import running
from tests.worksite import Worksite
from worker.lifecycle import BuildPoint
from worker.lifecycle.failpoints import VARIABLE
from worker.reconcile import reconcile
from worker.runtime import Runtime
from worker.trees import rebuild, rebuild_all

ROOT = Path(__file__).parents[4]
CONTROL = "hmi:hmi.control"


@pytest.fixture(autouse=True)
def movies(site: Worksite) -> None:
    site.add_domain("movies")
    count(site, "movies", [5])


def request(site: Worksite) -> int:
    with site.database.session() as session:
        return trees.request_rebuild(session, base_id(site))


def requested(site: Worksite) -> int | None:
    with site.database.session(read_only=True) as session:
        return trees.requested_version(session, base_id(site))


def numbers(site: Worksite) -> list[int]:
    with site.database.session(read_only=True) as session:
        return sorted(version.number for version in trees.versions(session, base_id(site)))


def deliver(runtime: Runtime, redis_url: str) -> int:
    """Run the rebuilds whose messages are in Redis, and return the number of messages."""
    delivered = 0
    with redis.Redis.from_url(redis_url) as client:
        while (raw := client.rpop(CONTROL)) is not None:
            assert isinstance(raw, bytes)
            assert json.loads(raw)["headers"]["task"] == TaskName.REBUILD_TREES
            rebuild(runtime, "base", only_requested=True)  # as the task does
            delivered += 1
    return delivered


def holds(site: Worksite, runtime: Runtime, middle: int) -> bool:
    keys = count(site, "movies", [middle])
    return bool(runtime.source.tree(base_artifact(site)).lookup("movies", keys).hit.all())


def fail_computing(*_: object, **__: object) -> None:
    raise MemoryError


def test_another_build_follows_when_a_rebuild_is_requested_while_one_runs(
    site: Worksite, runtime: Runtime, redis_url: str
) -> None:
    promised: list[int] = []

    def count_and_request() -> None:
        count(site, "movies", [9])
        promised.append(request(site))

    during_compute(runtime, count_and_request)
    rebuild(runtime, "base")
    assert published(site).number == 1
    assert promised == [2]
    assert not holds(site, runtime, 9)
    assert deliver(runtime, redis_url) == 1
    assert published(site).number == 2
    assert holds(site, runtime, 9)
    assert requested(site) is None
    assert deliver(runtime, redis_url) == 0


def test_one_build_answers_all_when_several_requests_arrive_while_one_runs(
    site: Worksite, runtime: Runtime, redis_url: str
) -> None:
    promised: list[int] = []

    def request_thrice() -> None:
        for middle in (9, 20, 30):
            count(site, "movies", [middle])
            promised.append(request(site))
            with running(site, name="other@there") as other:
                rebuild(other, "base", only_requested=True)  # its message finds the build under way

    during_compute(runtime, request_thrice)
    rebuild(runtime, "base")
    assert promised == [2, 2, 2]
    assert deliver(runtime, redis_url) == 1
    assert all(holds(site, runtime, middle) for middle in (9, 20, 30))
    rebuild(runtime, "base", only_requested=True)  # a duplicate message
    assert numbers(site) == [1, 2]


def test_a_request_is_sent_again_when_its_message_is_lost(site: Worksite, runtime: Runtime, redis_url: str) -> None:
    assert request(site) == 1
    reconcile(runtime)
    assert deliver(runtime, redis_url) == 1
    assert published(site).number == 1
    reconcile(runtime)
    assert deliver(runtime, redis_url) == 0


def test_no_message_is_sent_while_the_requested_build_runs(site: Worksite, runtime: Runtime, redis_url: str) -> None:
    request(site)
    sent: list[int] = []

    def reconcile_elsewhere() -> None:
        with running(site, name="other@there") as other:
            reconcile(other)
        with redis.Redis.from_url(redis_url) as client:
            sent.append(int(client.llen(CONTROL)))

    during_compute(runtime, reconcile_elsewhere)
    rebuild(runtime, "base", only_requested=True)
    assert sent == [0]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("point", [BuildPoint.BEGUN, BuildPoint.STORED, BuildPoint.PUBLISHED])
def test_a_request_is_answered_when_the_builder_is_killed(
    site: Worksite, runtime: Runtime, redis_url: str, point: BuildPoint
) -> None:
    """After PUBLISHED its own request is answered, and one that arrived during the build is not sent by it."""
    request(site)
    command = [sys.executable, "-W", "ignore", "-m", "tests.builder", "base"]
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HMI_")}
    killed = subprocess.run(command, cwd=ROOT, env=variables | site.environment() | {VARIABLE: point}, check=False)
    assert killed.returncode == -signal.SIGKILL
    count(site, "movies", [9])
    assert request(site) == 2
    with site.database.session() as session:
        session.execute(update(TreeVersion).where(TreeVersion.lease_until.is_not(None)).values(lease_until=1.0))
    reconcile(runtime)
    assert deliver(runtime, redis_url) == 1
    assert published(site).number == 2
    assert holds(site, runtime, 9)


def test_a_request_stays_open_within_limits_when_its_builds_fail(
    site: Worksite, runtime: Runtime, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request(site)
    with monkeypatch.context() as patched:
        patched.setattr(runtime.engine, "compute_rows", fail_computing)
        for number in (1, 2, 3):
            assert requested(site) == 1
            reconcile(runtime)
            assert deliver(runtime, redis_url) == 1
            assert (last_version(site).number, last_version(site).status) == (number, TreeStatus.FAILED)
    assert requested(site) is None
    reconcile(runtime)
    assert deliver(runtime, redis_url) == 0
    assert request(site) == 4  # a new request has tries of its own
    reconcile(runtime)
    assert deliver(runtime, redis_url) == 1
    assert published(site).number == 4


def test_a_request_is_answered_when_the_build_that_ran_fails(
    site: Worksite, runtime: Runtime, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def request_and_fail(*_: object, **__: object) -> None:
        request(site)
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(runtime.engine, "compute_rows", request_and_fail)
        rebuild(runtime, "base")
    assert requested(site) == 2
    assert deliver(runtime, redis_url) == 1  # at once, without `reconcile`
    assert published(site).number == 2


def test_a_builder_that_is_stopped_counts_no_failure(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Cancelled("the worker was stopped")

    request(site)
    with monkeypatch.context() as patched:
        patched.setattr(runtime.engine, "compute_rows", stop)
        for _ in range(5):
            rebuild(runtime, "base", only_requested=True)
    assert numbers(site) == [1, 2, 3, 4, 5]
    assert requested(site) == 6
    rebuild(runtime, "base", only_requested=True)
    assert published(site).number == 6


def test_a_request_is_closed_when_the_tree_is_rolled_back(site: Worksite, runtime: Runtime, redis_url: str) -> None:
    for middle in (9, 20):
        rebuild(runtime, "base")
        count(site, "movies", [middle])
    request(site)

    def roll_back() -> None:
        request(site)
        with site.database.session() as session:
            trees.rollback(session, base_id(site))

    during_compute(runtime, roll_back)
    rebuild(runtime, "base", only_requested=True)
    assert published(site).number == 1
    assert requested(site) is None
    reconcile(runtime)
    assert deliver(runtime, redis_url) == 0
    assert request(site) == 4
    reconcile(runtime)
    assert deliver(runtime, redis_url) == 1
    assert published(site).number == 4
    assert holds(site, runtime, 20)


def test_a_request_is_kept_when_the_broker_is_down(site: Worksite, redis_url: str) -> None:
    down = Worksite(site.root, site.settings.database_url, "redis://127.0.0.1:1/0")
    with running(down) as runtime:
        during_compute(runtime, lambda: request(site))
        rebuild(runtime, "base")
        assert published(site).number == 1
    down.close()
    with running(site) as runtime:
        reconcile(runtime)
        assert deliver(runtime, redis_url) == 1
    assert published(site).number == 2


def test_the_schedule_rebuilds_when_a_delta_changed_during_the_last_build(site: Worksite, runtime: Runtime) -> None:
    during_compute(runtime, lambda: set_delta(site, "movies", b"during the build"))
    rebuild_all(runtime)
    assert published(site).number == 1
    rebuild_all(runtime)
    assert published(site).number == 2
    rebuild_all(runtime)
    assert published(site).number == 2
