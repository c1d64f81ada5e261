"""Running shards: what files and catalog hold afterwards, also after errors."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hmi.catalog import BatchStatus, JobState, batches, shards
from hmi.errors import StorageFull, Transient
from hmi.items import Item
from hmi.jobs import Weight
from tests.runtimes import Watcher, run_shard, run_waiting, running
from tests.waiting import wait_until
from tests.worksite import Worksite, line
from worker.lifecycle import Lease
from worker.paths import ShardPaths
from worker.reconcile import reconcile
from worker.runtime import Runtime
from worker.shards import answers as answering
from worker.shards.answers import answer_shard
from worker.shards.monitor import ShardMonitor

MODEL = "acme/sentiment"


def on_text(text: str, error: BaseException) -> Callable[[Item], None]:
    """Raises `error` at the items of one text."""

    def look(item: Item) -> None:
        if item.text == text:
            raise error

    return look


def test_every_line_is_answered_once_when_a_batch_runs(site: Worksite, runtime: Runtime) -> None:
    batch = site.submit("acme", [line(f"c{number}", MODEL, f"text {number}") for number in range(10)])
    assert run_waiting(runtime, site) == 3
    results = site.results("acme", batch)
    assert results.status is BatchStatus.COMPLETED
    assert len({str(body["data"]) for body in results.answers.values()}) == 10
    assert site.working_files() == []


def test_one_line_holds_many_inputs_when_they_exceed_a_submission(site: Worksite, runtime: Runtime) -> None:
    batch = site.submit("acme", [line("many", MODEL, [f"t{number}" for number in range(1500)]), line("one", MODEL)])
    run_waiting(runtime, site)
    assert [entry["index"] for entry in site.results("acme", batch).answers["many"]["data"]] == list(range(1500))


def test_answers_are_the_same_when_their_sequences_are_in_several_submissions(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        line("five", MODEL, [f"t{number}" for number in range(5)]),
        line("typo", "acme/sentimint"),
        line("one", MODEL, "t7"),
        line("four", MODEL, [f"t{number}" for number in range(4)]),
    ]
    found = []
    for sequences in (512, 2):
        monkeypatch.setattr(answering, "_SUBMISSION", Weight(sequences=sequences))
        batch = site.submit("acme", lines)
        run_waiting(runtime, site)
        results = site.results("acme", batch)
        found.append({name: body["data"] for name, body in results.answers.items()})
        assert results.error_code("typo") == "model_not_found"
    assert found[0] == found[1]


def test_only_bad_lines_get_errors_when_bodies_are_wrong(site: Worksite, runtime: Runtime) -> None:
    site.add_tenant("umbrella")
    site.add_model("umbrella", adapter=b"umbrella's weights")
    broken = site.add_model("acme", "broken", adapter=b"weights that go missing")
    assert broken is not None
    site.artifacts.delete(broken)
    batch = site.submit(
        "acme",
        [
            line("good", MODEL),
            line("typo", "acme/sentimint"),
            line("foreign", "umbrella/sentiment"),
            line("number", MODEL, 7),
            line("broken", "acme/broken"),
            line("stream", MODEL, stream=True),
            line("also good", MODEL, [[5, 6, 7], [8]]),
        ],
    )
    run_waiting(runtime, site)
    results = site.results("acme", batch)
    assert set(results.answers) == {"good", "also good"}
    assert results.error_code("typo") == results.error_code("foreign") == "model_not_found"
    assert results.errors["typo"]["response"]["status_code"] == 404
    assert results.error_code("number") == "invalid_value"
    assert results.error_code("broken") == "not_found"
    assert results.error_code("stream") == "unsupported_parameter"


def test_the_same_bytes_come_out_when_a_shard_runs_again(site: Worksite, runtime: Runtime) -> None:
    batch = site.submit("acme", [line("a", MODEL), line("b", "acme/nothing")])
    contents = []
    for _ in range(2):
        (message,) = site.queue()
        run_shard(runtime, message.job_id, message.attempt + 1)  # an attempt that is not: dropped
        with site.database.session() as session:
            claim = shards.claim(session, message.job_id, message.attempt, owner="x", lease_seconds=60)
        assert claim is not None
        paths = ShardPaths.of(batch, claim.shard_id, claim.attempt)
        answer_shard(runtime, claim, paths, ShardMonitor(Lease("x", lambda *_: True), runtime.stopping, 60, lambda: 0))
        contents.append([site.storage.open(path).read() for path in (paths.output, paths.error)])
        with site.database.session() as session:
            shards.release(session, message.job_id, message.attempt, reason="again", count_failure=False)
    assert contents[0] == contents[1]
    run_waiting(runtime, site)
    site.results("acme", batch)


def test_repeated_message_is_dropped_when_the_shard_is_done(site: Worksite, runtime: Runtime) -> None:
    batch = site.submit("acme", [line("a", MODEL)])
    (message,) = site.queue()
    for _ in range(3):
        run_shard(runtime, message.job_id, message.attempt)
    assert len(site.results("acme", batch).answers) == 1
    assert runtime.engine.stats().sequences == 1


def test_stale_worker_cannot_finish_a_reclaimed_shard(site: Worksite, runtime: Runtime, watcher: Watcher) -> None:
    batch = site.submit("acme", [line("a", MODEL), line("b", MODEL)])
    (message,) = site.queue()

    def be_overtaken(item: Item) -> None:
        watcher.look = None
        site.lapse(message.job_id)
        with running(site, name="other@there") as other:
            reconcile(other)
            (shard,) = site.shards(batch)
            assert (shard.state, shard.attempt, shard.failures) == (JobState.QUEUED, 2, 1)
            run_shard(other, shard.id, shard.attempt)

    watcher.look = be_overtaken
    run_shard(runtime, message.job_id, message.attempt)
    results = site.results("acme", batch)
    assert len(results.answers) == 2
    assert site.working_files() == []


def test_work_stops_between_submissions_when_the_lease_is_lost(
    site: Worksite, runtime: Runtime, watcher: Watcher
) -> None:
    # Five submissions of 600 items each; the lease goes at the first item.
    site.submit("acme", [line(f"c{number}", MODEL, ["text"] * 600) for number in range(4)])
    (message,) = site.queue()

    def lose(item: Item) -> None:
        watcher.look = None
        site.lapse(message.job_id)
        with site.database.session() as session:
            shards.expire_leases(session)
        runtime.leases.extend()

    watcher.look = lose
    run_shard(runtime, message.job_id, message.attempt)
    assert runtime.engine.stats().sequences < 2400
    assert site.working_files() == []


@pytest.mark.parametrize("error", [Transient("no answer"), StorageFull("no room")])
def test_no_failure_is_counted_when_an_error_is_transient(
    site: Worksite, runtime: Runtime, watcher: Watcher, error: Exception
) -> None:
    batch = site.submit("acme", [line("a", MODEL, "x"), line("b", MODEL, "y")])
    watcher.look = on_text("y", error)
    run_waiting(runtime, site)
    (shard,) = site.shards(batch)
    assert (shard.state, shard.failures, shard.last_failure) == (JobState.PENDING, 0, None)
    watcher.look = None
    run_waiting(runtime, site)
    assert len(site.results("acme", batch).answers) == 2


def test_no_failure_is_counted_when_the_disk_is_full(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = site.submit("acme", [line("a", MODEL)])

    def full(path: str) -> object:
        raise StorageFull(f"no room left to write {path}")

    with monkeypatch.context() as patched:
        patched.setattr(runtime.storage, "create", full)
        run_waiting(runtime, site)
    (shard,) = site.shards(batch)
    assert (shard.state, shard.failures) == (JobState.PENDING, 0)
    run_waiting(runtime, site)
    assert len(site.results("acme", batch).answers) == 1


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), MemoryError(), KeyboardInterrupt()])
def test_only_the_poison_line_fails_when_it_fails_every_time(
    site: Worksite, runtime: Runtime, watcher: Watcher, error: BaseException
) -> None:
    batch = site.submit("acme", [line(f"c{number}", MODEL, f"text {number}") for number in range(4)])
    watcher.look = on_text("text 2", error)
    rounds = 0
    while not site.has_ended("acme", batch):
        rounds += 1
        assert rounds < 20
        run_waiting(runtime, site)
        reconcile(runtime)
        # What reconcile dispatched is in a queue that has no consumer here.
        with site.database.session() as session:
            shards.requeue_lost(session, -1)
    results = site.results("acme", batch)
    assert set(results.answers) == {"c0", "c1", "c3"}
    assert results.error_code("c2") == "poison_line"
    assert results.errors["c2"]["response"]["status_code"] == 500
    assert "text 2" not in str(results.errors["c2"])


def test_quarantined_shard_runs_alone_in_its_process(site: Worksite, runtime: Runtime, watcher: Watcher) -> None:
    failing = site.submit("acme", [line(f"c{number}", MODEL, f"text {number}") for number in range(3)])
    watcher.look = on_text("text 2", ValueError("bad"))
    run_waiting(runtime, site)
    (quarantined,) = site.queue()
    site.submit("acme", [line("other", MODEL, "other")])
    (other,) = site.queue()
    seen: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def look(item: Item) -> None:
        seen.append(str(item.text))
        if item.text == "other":
            entered.set()
            assert leave.wait(20)

    watcher.look = look
    first = threading.Thread(target=run_shard, args=(runtime, other.job_id, other.attempt))
    first.start()
    assert entered.wait(20)
    second = threading.Thread(target=run_shard, args=(runtime, quarantined.job_id, quarantined.attempt))
    second.start()
    wait_until(lambda: runtime.device_lock.waiting == 1)
    (waiting,) = site.shards(failing)
    assert waiting.state is JobState.QUEUED  # no lease that could expire, which would count as a failure
    leave.set()
    first.join()
    second.join()
    assert seen == ["other", "text 0", "text 1", "text 2"]


@pytest.mark.parametrize("others_are_served", [True, False])
def test_a_failure_is_counted_when_a_shard_misses_its_deadline(
    tmp_path: Path,
    database_url: str,
    redis_url: str,
    watcher: Watcher,
    monkeypatch: pytest.MonkeyPatch,
    others_are_served: bool,
) -> None:
    site = Worksite(
        tmp_path / "data", database_url, redis_url, lease_seconds=0.1, shard_deadline_seconds=0.2, shard_lines=4
    )
    site.add_base()
    site.add_tenant("acme")
    site.add_model("acme")
    batch = site.submit("acme", [line("a", MODEL)])
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    released = threading.Event()

    def hang(item: Item) -> None:
        released.wait(20)

    watcher.look = hang
    with running(site, watcher) as runtime:
        if others_are_served:
            calls = itertools.count()
            real = runtime.engine.stats
            monkeypatch.setattr(runtime.engine, "stats", lambda: dataclasses.replace(real(), batches=next(calls)))
        (message,) = site.queue()
        run_shard(runtime, message.job_id, message.attempt)
        released.set()
        (shard,) = site.shards(batch)
    assert (shard.state, shard.failures) == (JobState.PENDING, 1)
    assert shard.last_failure is not None
    assert "shard_deadline" in shard.last_failure
    # A device that did nothing in all that time hangs; only a new process helps.
    assert exits == ([] if others_are_served else [70])
    site.close()


def test_shard_is_released_when_the_worker_stops(site: Worksite, runtime: Runtime) -> None:
    batch = site.submit("acme", [line("a", MODEL)])
    runtime.stopping.set()
    run_waiting(runtime, site)
    (shard,) = site.shards(batch)
    assert (shard.state, shard.failures) == (JobState.PENDING, 0)
    with running(site, name="next@here") as other:
        run_waiting(other, site)
    assert len(site.results("acme", batch).answers) == 1


def test_shard_does_not_run_when_its_batch_is_cancelled(site: Worksite, runtime: Runtime) -> None:
    batch = site.submit("acme", [line(f"c{number}", MODEL) for number in range(8)])
    first, second = site.queue()
    run_shard(runtime, first.job_id, first.attempt)
    with site.database.session() as session:
        batches.cancel_batch(session, site.tenant("acme").id, batch)
    run_shard(runtime, second.job_id, second.attempt)
    reconcile(runtime)
    results = site.results("acme", batch)
    assert results.status is BatchStatus.CANCELLED
    assert set(results.answers) == {"c0", "c1", "c2", "c3"}
    assert {results.error_code(f"c{number}") for number in range(4, 8)} == {"batch_cancelled"}
