"""Repairing the record after crashes and lost messages."""

from __future__ import annotations

import pytest
import redis
from sqlalchemy import update

from hmi.catalog import Batch, BatchStatus, JobState, Shard, batches, execute_dml, shards
from hmi.errors import StorageFull
from hmi.storage import Storage
from tests.runtimes import run_shard, run_waiting, running
from tests.worksite import Worksite, line
from worker.paths import result_folder, shard_folder
from worker.reconcile import reconcile
from worker.runtime import Runtime
from worker.shards import ShardRunner, finalize, finalize_if_last

MODEL = "acme/sentiment"


def forget_when_queued(site: Worksite) -> None:
    with site.database.session() as session:
        execute_dml(session, update(Shard).where(Shard.state == JobState.QUEUED).values(queued_at=1.0))


def queue_length(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen("hmi:hmi.shards"))


def test_messages_are_sent_again_when_the_broker_lost_them(site: Worksite, runtime: Runtime, redis_url: str) -> None:
    batch = site.submit("acme", [line("a", MODEL)])
    assert ShardRunner(runtime).dispatch() == 1
    assert queue_length(redis_url) == 1
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    reconcile(runtime)
    assert queue_length(redis_url) == 0  # not lost for long enough
    forget_when_queued(site)
    reconcile(runtime)
    assert queue_length(redis_url) == 1
    (shard,) = site.shards(batch)
    assert (shard.state, shard.attempt, shard.failures) == (JobState.QUEUED, 2, 0)
    run_shard(runtime, shard.id, 1)
    assert runtime.engine.stats().sequences == 0
    run_shard(runtime, shard.id, 2)
    site.results("acme", batch)


def test_shards_stay_in_the_catalog_when_the_broker_is_down(site: Worksite) -> None:
    batch = site.submit("acme", [line("a", MODEL)])
    down = Worksite(site.root, site.settings.database_url, "redis://127.0.0.1:1/0")
    with running(down) as runtime:
        assert ShardRunner(runtime).dispatch() == 0
    down.close()
    forget_when_queued(site)
    with running(site) as runtime:
        reconcile(runtime)
        run_waiting_or_queued(runtime, site, batch)
    site.results("acme", batch)


def run_waiting_or_queued(runtime: Runtime, site: Worksite, batch: str) -> None:
    run_waiting(runtime, site)
    for shard in site.shards(batch):
        run_shard(runtime, shard.id, shard.attempt)


def test_a_failure_is_counted_when_the_worker_of_a_shard_dies(site: Worksite, runtime: Runtime) -> None:
    batch = site.submit("acme", [line("a", MODEL)])
    (message,) = site.queue()
    with site.database.session() as session:
        shards.claim(session, message.job_id, message.attempt, owner="dead@there/7", lease_seconds=60)
    reconcile(runtime)
    assert site.shards(batch)[0].state is JobState.LEASED
    site.lapse(message.job_id)
    reconcile(runtime)
    (shard,) = site.shards(batch)
    assert (shard.state, shard.attempt, shard.failures) == (JobState.QUEUED, 2, 1)
    assert shard.last_failure is not None
    assert "dead@there/7" in shard.last_failure


def test_one_result_is_published_when_two_workers_finalize(site: Worksite, runtime: Runtime) -> None:
    batch = site.submit("acme", [line("a", MODEL), line("b", "acme/nothing")])
    with running(site, name="other@there") as other:
        real = runtime.storage.move

        def be_late(source: str, target: str) -> None:
            runtime.storage.move = real  # type: ignore[method-assign]
            real(source, target)
            with site.database.session() as session:
                execute_dml(session, update(Batch).where(Batch.id == batch).values(finalizing_until=1.0))
            assert finalize_if_last(other, batch)

        runtime.storage.move = be_late  # type: ignore[method-assign]
        run_waiting(runtime, site)
    results = site.results("acme", batch)
    assert (set(results.answers), set(results.errors)) == ({"a"}, {"b"})
    assert len(site.storage.names(result_folder(batch))) == 2
    assert site.working_files() == []


def test_result_is_assembled_again_when_the_first_try_failed(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = site.submit("acme", [line("a", MODEL)])

    def full(storage: Storage, **_: object) -> object:
        raise StorageFull("no room left")

    with monkeypatch.context() as patched:
        patched.setattr(finalize, "assemble", full)
        run_waiting(runtime, site)
        reconcile(runtime)
    assert site.batch("acme", batch).batch.status is BatchStatus.FINALIZING
    with site.database.session() as session:
        execute_dml(session, update(Batch).values(finalizing_until=1.0))
    reconcile(runtime)
    assert len(site.results("acme", batch).answers) == 1


def test_lines_that_never_ran_are_reported_when_the_window_is_over(site: Worksite, runtime: Runtime) -> None:
    batch = site.submit("acme", [line(f"c{number}", MODEL) for number in range(6)])
    first, _ = site.queue()
    run_shard(runtime, first.job_id, first.attempt)
    with site.database.session() as session:
        execute_dml(session, update(Batch).where(Batch.id == batch).values(expires_at=1.0))
    reconcile(runtime)
    results = site.results("acme", batch)
    assert results.status is BatchStatus.EXPIRED
    assert set(results.answers) == {"c0", "c1", "c2", "c3"}
    assert {results.error_code(f"c{number}") for number in (4, 5)} == {"batch_expired"}


def test_batch_ends_when_it_was_cancelled_before_anything_ran(site: Worksite, runtime: Runtime) -> None:
    batch = site.submit("acme", [line("a", MODEL)])
    with site.database.session() as session:
        batches.cancel_batch(session, site.tenant("acme").id, batch)
    reconcile(runtime)
    results = site.results("acme", batch)
    assert (results.status, results.error_code("a")) == (BatchStatus.CANCELLED, "batch_cancelled")


def test_files_of_stale_attempts_are_deleted_when_their_batch_has_ended(site: Worksite, runtime: Runtime) -> None:
    done = site.submit("acme", [line("a", MODEL)])
    run_waiting(runtime, site)
    waiting = site.submit("acme", [line("a", MODEL)])
    for batch in (done, waiting):
        with site.storage.create(f"{shard_folder(batch)}/late.jsonl") as out:
            out.write(b"{}\n")
    reconcile(runtime)
    assert site.storage.names("shards") == [waiting]


def test_reconcile_continues_when_one_step_fails(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    site.submit("acme", [line("a", MODEL)])

    def fail(session: object, max_failures: int) -> object:
        raise RuntimeError("broken step")

    monkeypatch.setattr(shards, "exhausted", fail)
    reconcile(runtime)
    assert queue_length(redis_url) == 1


def test_a_poison_line_is_found_when_the_file_of_another_shard_is_lost(site: Worksite, runtime: Runtime) -> None:
    lost, poison = (site.submit("acme", [line("a", MODEL)]) for _ in range(2))
    with site.database.session() as session:
        execute_dml(session, update(Shard).values(failures=site.settings.max_shard_failures))
        # The first to be looked at is the one that cannot be read.
        execute_dml(session, update(Shard).where(Shard.batch_id == lost).values(id="shard_0"))
    site.storage.delete(site.batch("acme", lost).batch.input_path)
    reconcile(runtime)
    assert site.results("acme", poison).error_code("a") == "poison_line"
    assert not site.has_ended("acme", lost)
