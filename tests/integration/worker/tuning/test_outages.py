"""Fine-tuning jobs while a remote storage does not answer."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hmi.catalog import JobState, TuningJob
from tests.faulty_storage import FaultyFileSystem
from tests.runtimes import running
from tests.tunings import at_step, found_job, make_job, queue_jobs, run_jobs, use_stub
from tests.worksite import Worksite
from worker.runtime import Runtime
from worker.tuning import TrainingRunner


@pytest.fixture
def site(tmp_path: Path, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worksite]:
    use_stub(monkeypatch)
    monkeypatch.setattr(TrainingRunner, "dispatch", lambda runner: 0)
    site = Worksite(
        tmp_path / "data",
        database_url,
        redis_url,
        storage_url=f"faulty://{secrets.token_hex(8)}",
        training_checkpoint_seconds=1e-6,
    )
    site.add_tenant("acme")
    yield site
    site.close()


@pytest.fixture
def runtime(site: Worksite) -> Iterator[Runtime]:
    with running(site) as runtime:
        yield runtime


def assert_waits_and_succeeds(site: Worksite, runtime: Runtime, job_id: str) -> None:
    job = found_job(site, job_id)
    assert (job.state, job.failures) == (JobState.PENDING, 0), job.last_failure
    assert queue_jobs(site) == []  # it waits
    with site.database.session() as session:
        session.get_one(TuningJob, job_id).not_before = 1.0
    run_jobs(runtime, site)
    assert found_job(site, job_id).state is JobState.SUCCEEDED


def test_job_is_pending_without_a_failure_when_its_files_are_out_of_reach(site: Worksite, runtime: Runtime) -> None:
    job_id = make_job(site)
    with FaultyFileSystem.failing():
        run_jobs(runtime, site)
    assert_waits_and_succeeds(site, runtime, job_id)


def test_job_is_pending_without_a_failure_when_its_model_cannot_be_stored(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(site)
    with ExitStack() as outage:
        at_step(monkeypatch, 6, lambda: outage.enter_context(FaultyFileSystem.failing()))
        run_jobs(runtime, site)
    assert_waits_and_succeeds(site, runtime, job_id)


def test_training_continues_when_its_checkpoint_cannot_be_copied(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(site)
    outage = ExitStack()
    at_step(monkeypatch, 2, lambda: outage.enter_context(FaultyFileSystem.failing()))
    with monkeypatch.context() as second, outage:
        at_step(second, 5, outage.close)
        run_jobs(runtime, site)
    job = found_job(site, job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1), job.last_failure
