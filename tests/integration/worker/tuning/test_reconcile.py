"""Repairing fine-tuning jobs after crashes and lost messages, and pacing trainings beside jobs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from sqlalchemy import update

from hmi.catalog import JobState, TuningJob, execute_dml, fine_tuning
from tests.tunings import at_step, found_job, make_job, queue_jobs, run_jobs
from tests.worksite import Worksite
from worker.lifecycle import Pace
from worker.paths import checkpoint_path, training_folder, work_folder
from worker.reconcile import reconcile
from worker.runtime import Runtime
from worker.tuning import TrainingRunner


def waiting_messages(site: Worksite) -> int:
    with redis.Redis.from_url(site.settings.broker_url.get_secret_value()) as client:
        return int(client.llen("hmi:hmi.training"))


def cancel(site: Worksite, job_id: str) -> None:
    with site.database.session() as session:
        fine_tuning.cancel_job(session, found_job(site, job_id).tenant_id, job_id)


def test_no_more_jobs_are_sent_than_may_be_in_flight(site: Worksite, runtime: Runtime) -> None:
    for name in ("one", "two", "three"):
        make_job(site, suffix=name)
    assert TrainingRunner(runtime).dispatch() == 1
    assert TrainingRunner(runtime).dispatch() == 0
    assert waiting_messages(site) == 1


def test_a_job_is_sent_again_when_its_worker_or_its_message_is_lost(site: Worksite, runtime: Runtime) -> None:
    job_id = make_job(site)
    queue_jobs(site)
    with site.database.session() as session:
        execute_dml(session, update(TuningJob).values(queued_at=1.0))
    reconcile(runtime)
    job = found_job(site, job_id)
    assert (job.state, job.attempt, job.failures, waiting_messages(site)) == (JobState.QUEUED, 2, 0, 1)
    with site.database.session() as session:
        execute_dml(session, update(TuningJob).values(state=JobState.LEASED, lease_until=1.0))
    reconcile(runtime)
    job = found_job(site, job_id)
    assert (job.state, job.attempt, job.failures, waiting_messages(site)) == (JobState.QUEUED, 3, 1, 2)


def test_checkpoints_are_deleted_when_their_job_has_ended(site: Worksite, runtime: Runtime) -> None:
    job_id = make_job(site)
    with site.storage.create(checkpoint_path(job_id, 1)) as out:
        out.write(b"weights")
    reconcile(runtime)
    assert site.storage.exists(checkpoint_path(job_id, 1))
    cancel(site, job_id)
    reconcile(runtime)
    assert not site.storage.exists(training_folder(job_id))


def test_unfinished_artifacts_are_kept_while_their_job_runs(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(site)
    with site.storage.create(f"staging/{job_id}.0123") as out:  # as `ArtifactStore.put` leaves it when it is killed
        out.write(b"half")
    left: list[int] = []

    def look() -> None:
        reconcile(runtime)
        left.append(len(site.artifacts.unfinished()))

    at_step(monkeypatch, 2, look)
    run_jobs(runtime, site)
    assert left == [1]
    reconcile(runtime)
    assert site.artifacts.unfinished() == {}


def test_folders_of_dead_attempts_are_deleted_by_the_next_job(site: Worksite, runtime: Runtime) -> None:
    dead = work_folder(site.settings.resolved_cache_dir, "ftjob-dead", 3)
    dead.mkdir(parents=True)
    make_job(site)
    run_jobs(runtime, site)
    assert not dead.exists()


def test_a_training_waits_in_proportion_to_its_cost(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    time = [0.0]

    def sleep(seconds: float) -> None:
        time[0] += seconds
        slept.append(seconds)

    def pace(check: Callable[[], None] | None = None, share: float | None = None) -> Pace:
        assert share == site.settings.training_share == 0.1
        return Pace(share, lambda: True, check or runtime.stopping.check, lambda: time[0], sleep)

    monkeypatch.setattr(runtime, "pace", pace)
    job_id = make_job(site, cost_seconds=0.5)
    run_jobs(runtime, site)
    assert found_job(site, job_id).state is JobState.SUCCEEDED
    assert sum(slept) == pytest.approx(6 * 0.5 / 0.1)  # six steps; only sleep advances the clock
