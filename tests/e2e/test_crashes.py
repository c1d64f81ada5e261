"""Workers that die, are suspended or stopped: every batch ends with one output line for each input line."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from hmi.catalog import BatchStatus, JobState
from tests.e2e.cluster import Cluster, ServiceProcess, run_cluster
from tests.e2e.stub_worker import DEADLY_TEXT, SECONDS_PER_ITEM
from tests.waiting import wait_until
from tests.worksite import Worksite, line
from worker.lifecycle import FailPoint
from worker.lifecycle.failpoints import VARIABLE

MODEL = "acme/sentiment"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with run_cluster(tmp_path, shard_lines=5) as cluster:
        cluster.site.add_base()
        cluster.site.add_tenant("acme")
        cluster.site.add_model("acme", adapter=b"acme's weights")
        yield cluster


def submit(site: Worksite, lines: int) -> str:
    return site.submit("acme", [line(f"c{number}", MODEL, f"text {number}") for number in range(lines)])


def wait_for_end(cluster: Cluster, batch: str) -> None:
    cluster.wait_until(lambda: cluster.site.has_ended("acme", batch), what=f"the end of {batch}")


def in_state(site: Worksite, batch: str, state: JobState) -> int:
    return sum(shard.state is state for shard in site.shards(batch))


def freeze(member: ServiceProcess, site: Worksite) -> None:
    """Suspend the process at a moment when it does not hold SQLite's one write lock, which would block all others."""
    path = site.root.parent / "catalog.db"
    with contextlib.closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # now the process does not hold the lock
        member.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(member.process.pid).status() == psutil.STATUS_STOPPED)
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("point", list(FailPoint))
def test_batch_completes_when_a_worker_is_killed_at(cluster: Cluster, point: FailPoint) -> None:
    cluster.beat()
    doomed = cluster.stub_worker("doomed@here", **{VARIABLE: point})
    batch = submit(cluster.site, 20)
    assert doomed.process.wait(60) == -signal.SIGKILL
    cluster.stub_worker("heir@here")
    wait_for_end(cluster, batch)
    results = cluster.site.results("acme", batch)
    assert (results.status, len(results.answers)) == (BatchStatus.COMPLETED, 20)
    cluster.wait_until(lambda: not cluster.site.working_files(), what="the deletion of working files")


def test_nothing_is_lost_when_redis_is_emptied(cluster: Cluster) -> None:
    cluster.beat()
    cluster.stub_worker(**{SECONDS_PER_ITEM: "0.02"})
    batch = submit(cluster.site, 200)
    cluster.wait_until(lambda: in_state(cluster.site, batch, JobState.DONE) >= 2)
    with redis.Redis.from_url(cluster.site.settings.broker_url.get_secret_value()) as client:
        client.flushall()
    assert not cluster.site.has_ended("acme", batch)
    wait_for_end(cluster, batch)
    assert len(cluster.site.results("acme", batch).answers) == 200


def test_stale_worker_changes_nothing_when_it_resumes_after_its_lease(cluster: Cluster) -> None:
    cluster.beat()
    frozen = cluster.stub_worker("frozen@here", **{SECONDS_PER_ITEM: "0.3"})
    batch = submit(cluster.site, 10)
    cluster.wait_until(lambda: in_state(cluster.site, batch, JobState.LEASED) > 0)
    freeze(frozen, cluster.site)
    cluster.stub_worker("heir@here")
    wait_for_end(cluster, batch)
    frozen.process.send_signal(signal.SIGCONT)
    frozen.wait_for("job_lost")
    assert len(cluster.site.results("acme", batch).answers) == 10
    cluster.wait_until(lambda: not cluster.site.working_files(), what="the deletion of working files")
    again = submit(cluster.site, 10)
    wait_for_end(cluster, again)


def test_only_one_line_fails_when_it_kills_every_worker_that_runs_it(tmp_path: Path) -> None:
    with run_cluster(tmp_path, shard_lines=4, max_shard_failures=2) as cluster:
        cluster.site.add_base()
        cluster.site.add_tenant("acme")
        cluster.site.add_model("acme")
        cluster.beat()
        batch = submit(cluster.site, 4)
        workers: list[ServiceProcess] = []

        def has_ended() -> bool:
            if not workers or workers[-1].process.poll() is not None:
                workers.append(cluster.stub_worker(**{DEADLY_TEXT: "text 2"}))
            return cluster.site.has_ended("acme", batch)

        cluster.wait_until(has_ended, 120, what=f"the end of {batch}")
        results = cluster.site.results("acme", batch)
    assert set(results.answers) == {"c0", "c1", "c3"}
    assert results.error_code("c2") == "poison_line"
    assert 6 <= len(workers) <= 8  # it killed twice as one of four, once as one of two and twice alone


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_worker_releases_its_shards_when_it_gets_a_signal(cluster: Cluster, by: signal.Signals) -> None:
    cluster.beat()
    # One shard of 3,000 sequences and half a minute, given to the engine in submissions of 600.
    worker = cluster.stub_worker("leaver@here", **{SECONDS_PER_ITEM: "0.01"})
    batch = cluster.site.submit("acme", [line(f"c{number}", MODEL, ["text"] * 600) for number in range(5)])
    cluster.wait_until(lambda: in_state(cluster.site, batch, JobState.LEASED) > 0)
    began = time.monotonic()
    assert worker.end(by) == 0, worker.log
    assert time.monotonic() - began < 28
    (shard,) = cluster.site.shards(batch)
    assert (shard.state in (JobState.PENDING, JobState.QUEUED), shard.failures) == (True, 0)
    assert "worker_stopped" in worker.log


def test_worker_says_why_when_the_catalog_is_not_migrated(tmp_path: Path) -> None:
    site = Worksite(tmp_path / "data", f"sqlite:///{tmp_path / 'empty.db'}", "redis://127.0.0.1:1/0")
    cluster = Cluster(site, tmp_path)
    worker = cluster.stub_worker()
    assert worker.process.wait(60) == 1
    assert worker.log.splitlines()[-1] == (
        "hmi worker: cannot start: the catalog's schema is not this version's; run `hmi db upgrade`"
    )


def test_flower_says_why_when_its_port_is_taken(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flower = cluster.flower(port)
        assert flower.process.wait(60) == 1
    assert f"hmi flower: cannot listen on 127.0.0.1:{port}: Address already in use" in flower.log


def test_worker_says_why_when_its_device_is_not_there(cluster: Cluster) -> None:
    worker = cluster.worker("--device", "cuda:77")
    assert worker.process.wait(60) == 1
    assert "hmi worker: cannot start: device" in worker.log.splitlines()[-1]


def test_worker_says_why_when_a_base_model_is_damaged(cluster: Cluster) -> None:
    (spec,) = cluster.site.root.glob("storage/artifacts/*/*/spec.json")
    spec.write_bytes(spec.read_bytes()[:-1] + b"]")
    worker = cluster.stub_worker()
    assert worker.process.wait(60) == 1
    assert "base model base cannot be loaded" in worker.log.splitlines()[-1]
    assert "checksum" in worker.log.splitlines()[-1]
