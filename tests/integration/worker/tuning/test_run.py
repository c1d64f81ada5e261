"""Fine-tuning jobs run by a worker, with and without failures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import delete, update

from hmi.adapters.formats import FILE_NAME, load_adapter
from hmi.catalog import JobState, RegisteredBase, TuningJob, execute_dml, files, fine_tuning, models, tenants, trainings
from hmi.catalog.schema import TenantModel
from hmi.errors import StorageFull, Transient
from hmi.storage import Storage
from tests.runtimes import running
from tests.stub_trainer import expected_adapter
from tests.tunings import TEXT, at_step, found_job, make_job, queue_jobs, run_jobs, said
from tests.worksite import Worksite
from worker.paths import TRAININGS, work_folder
from worker.runtime import Runtime
from worker.tuning import TrainingProcess, TrainingRunner
from worker.tuning.protocol import Reply

STEPS = 6  # two epochs of three


@pytest.fixture(autouse=True)
def nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that wait after another are for `run_jobs`, not for Redis."""
    monkeypatch.setattr(TrainingRunner, "dispatch", lambda runner: 0)


def served(site: Worksite, job: TuningJob) -> models.RegisteredModel:
    with site.database.session(read_only=True) as session:
        return models.get_model(session, tenants.principal_of(session, job.tenant_id), job.fine_tuned_model or "")


def working_files(site: Worksite) -> list[str]:
    """What is in the storage beside models and reports, and on this machine."""
    work = work_folder(site.settings.resolved_cache_dir, "", 0).parent
    return site.storage.names(TRAININGS) + [path.name for path in work.glob("*")] + list(site.artifacts.unfinished())


def assert_trained(site: Worksite, job_id: str, *, content: bytes = TEXT) -> TuningJob:
    """Check that the job succeeded with the adapter of an uninterrupted training, and left no working files."""
    job = found_job(site, job_id)
    assert job.state is JobState.SUCCEEDED, job.last_failure
    model = served(site, job)
    found = load_adapter(site.artifacts.folder(model.artifact or "", verify=True) / FILE_NAME)
    expected = expected_adapter(content, STEPS)
    assert found.summary() == expected.summary() == model.summary
    assert all((found.tensors()[name] == tensor).all() for name, tensor in expected.tensors().items())
    with site.database.session(read_only=True) as session:
        file = files.get_file(session, job.tenant_id, job.result_file_id or "")
    with site.storage.open(file.path) as stream:
        report: dict[str, Any] = json.loads(stream.read())
    assert (report["fine_tuning_job"], report["fine_tuned_model"]) == (job_id, job.fine_tuned_model)
    assert site.storage.names(f"results/{job_id}") == [file.id]
    assert working_files(site) == []
    return job


def test_a_job_becomes_a_model_with_a_report(site: Worksite, runtime: Runtime) -> None:
    job_id = make_job(site)
    assert run_jobs(runtime, site) == 1
    job = assert_trained(site, job_id)
    assert (job.fine_tuned_model, job.trained_tokens, job.failures) == ("acme/tuned", 10 * STEPS, 0)
    assert job.progress is not None
    assert (job.progress["done"], job.progress["steps"]) == (STEPS, STEPS)
    assert said(site, job_id) == [
        f"Created fine-tuning job: {job_id}",
        "Fine-tuning job started",
        "Epoch 1: train loss=1.0000, valid loss=1.0000, valid accuracy=0.5000",
        "Epoch 2: train loss=0.5000, valid loss=0.5000, valid accuracy=0.5000",
        "New fine-tuned model created: acme/tuned",
        "The job has successfully completed",
    ]
    assert run_jobs(runtime, site) == 0


def test_another_worker_resumes_the_job_when_its_worker_stops(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(site)
    at_step(monkeypatch, 4, runtime.stopping.set)
    run_jobs(runtime, site)
    job = found_job(site, job_id)
    assert (job.state, job.failures, job.checkpoint_step) == (JobState.PENDING, 0, 4)
    with running(site, name="other@there") as other:
        run_jobs(other, site)
    assert_trained(site, job_id)
    assert "Fine-tuning job resumed from step 4" in said(site, job_id)


def test_a_job_resumes_from_its_checkpoint_when_its_process_dies(site: Worksite, runtime: Runtime) -> None:
    job_id = make_job(site, dies_at=5, until_begun_at=0)
    run_jobs(runtime, site)
    job = found_job(site, job_id)
    assert (job.state, job.failures) == (JobState.PENDING, 1)
    assert job.checkpoint_step > 0
    assert job.last_failure == "trainer_died: the training process was killed by SIGKILL"
    run_jobs(runtime, site)
    assert assert_trained(site, job_id).attempt == 2


def test_no_failure_is_counted_when_the_process_ends_with_the_worker(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(site)
    real = TrainingProcess.receive

    def receive(process: TrainingProcess, seconds: float) -> Reply | None:
        runtime.stopping.set()
        process.kill()
        while real(process, seconds) is not None:  # until it raises
            pass
        raise AssertionError("the process was to be gone")

    monkeypatch.setattr(TrainingProcess, "receive", receive)
    run_jobs(runtime, site)
    job = found_job(site, job_id)
    assert (job.state, job.failures) == (JobState.PENDING, 0), job.last_failure


def test_a_job_fails_with_a_reason_when_its_process_dies_at_one_place(site: Worksite, runtime: Runtime) -> None:
    job_id = make_job(site, dies_at=2)
    while run_jobs(runtime, site):
        pass
    job = found_job(site, job_id)
    assert (job.state, job.attempt, (job.error or {})["code"]) == (JobState.FAILED, 3, "training_crashed")
    assert "SIGKILL" not in json.dumps([job.error, *said(site, job_id)])


def test_a_process_is_killed_when_it_sends_nothing(site: Worksite) -> None:
    quick = site.settings.model_copy(update={"training_silence_seconds": 1.0, "max_training_failures": 1})
    site.settings = quick
    job_id = make_job(site, silent_at=2)
    with running(site) as runtime:
        run_jobs(runtime, site)
    job = found_job(site, job_id)
    assert job.state is JobState.FAILED
    assert (job.last_failure or "").startswith("trainer_silent")


@pytest.mark.parametrize(
    ("kind", "state", "failures"),
    [
        ("InvalidInput", JobState.FAILED, 0),
        ("Corrupt", JobState.FAILED, 0),
        ("StorageFull", JobState.PENDING, 0),
        ("Transient", JobState.PENDING, 0),
        ("HmiError", JobState.PENDING, 1),
        ("NoSuchError", JobState.PENDING, 1),
    ],
)
def test_the_error_of_a_training_decides_the_state_of_its_job(
    site: Worksite, runtime: Runtime, kind: str, state: JobState, failures: int
) -> None:
    failure = {"kind": kind, "code": "the_code", "message": "the reason", "param": None}
    job_id = make_job(site, fails_at=1, failure=failure)
    run_jobs(runtime, site)
    job = found_job(site, job_id)
    assert (job.state, job.failures) == (state, failures)
    if state is JobState.FAILED:
        assert job.error == {"code": "the_code", "message": "the reason", "param": None}
        assert said(site, job_id)[-1] == "the reason"
    assert (job.not_before is not None) == (kind in {"StorageFull", "Transient"})


def test_a_job_that_is_cancelled_leaves_no_model(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(site)

    def cancel() -> None:
        with site.database.session() as session:
            fine_tuning.cancel_job(session, found_job(site, job_id).tenant_id, job_id)

    at_step(monkeypatch, 3, cancel)
    run_jobs(runtime, site)
    assert found_job(site, job_id).state is JobState.CANCELLED
    with site.database.session(read_only=True) as session:
        assert session.query(TenantModel).count() == 0


def test_a_stale_attempt_ends_nothing_when_another_worker_has_finished(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(site)

    def overtake() -> None:
        with site.database.session() as session:
            execute_dml(session, update(TuningJob).values(lease_until=1.0))
            trainings.expire_leases(session)
        with running(site, name="other@there") as other:
            run_jobs(other, site)

    at_step(monkeypatch, STEPS, overtake)
    run_jobs(runtime, site)
    job = assert_trained(site, job_id)
    assert job.attempt == 2
    assert served(site, job).revision == 1


def test_a_worker_trains_one_model_at_a_time(site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_job(site), make_job(site, suffix="second")
    first_message, second_message = queue_jobs(site)
    at_step(monkeypatch, 2, lambda: TrainingRunner(runtime).run(second_message.job_id, second_message.attempt))
    TrainingRunner(runtime).run(first_message.job_id, first_message.attempt)
    assert found_job(site, first).state is JobState.SUCCEEDED
    waiting = found_job(site, second)
    assert (waiting.failures, waiting.started_at) == (0, None)
    run_jobs(runtime, site)
    assert_trained(site, second)


def test_training_continues_when_its_checkpoint_finds_no_room(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(site)
    fill_disk(monkeypatch, "safetensors", within=TRAININGS)
    run_jobs(runtime, site)
    assert_trained(site, job_id)


def test_training_continues_when_the_catalog_does_not_answer(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise Transient("database is locked")

    job_id = make_job(site)
    for name in ("record_progress", "record_epoch", "record_checkpoint"):
        monkeypatch.setattr(trainings, name, fail)
    run_jobs(runtime, site)
    assert assert_trained(site, job_id).attempt == 1


def test_a_job_is_pending_without_a_failure_when_its_model_finds_no_room(
    site: Worksite, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(site)
    with monkeypatch.context() as patch:
        fill_disk(patch, "", within="staging")
        run_jobs(runtime, site)
    job = found_job(site, job_id)
    assert (job.state, job.failures) == (JobState.PENDING, 0)
    assert queue_jobs(site) == []  # it waits
    with site.database.session() as session:
        session.get_one(TuningJob, job_id).not_before = 1.0
    run_jobs(runtime, site)
    assert_trained(site, job_id)


def fill_disk(patch: pytest.MonkeyPatch, ending: str, *, within: str) -> None:
    """Make every write there fail with a full disk."""
    real = Storage.create

    def create(storage: Storage, path: str) -> Any:
        if path.startswith(within) and path.endswith(ending):
            raise StorageFull(f"no room left to write {path}")
        return real(storage, path)

    patch.setattr(Storage, "create", create)


def test_a_job_fails_when_its_base_model_is_gone(site: Worksite, runtime: Runtime) -> None:
    job_id = make_job(site)
    with site.database.session() as session:
        execute_dml(session, delete(RegisteredBase))
    run_jobs(runtime, site)
    job = found_job(site, job_id)
    assert (job.state, (job.error or {})["code"]) == (JobState.FAILED, "base_not_found")


def test_a_job_fails_when_the_model_to_begin_with_is_gone(site: Worksite, runtime: Runtime) -> None:
    job_id = make_job(site, start="0" * 64)
    run_jobs(runtime, site)
    job = found_job(site, job_id)
    assert (job.state, (job.error or {})["code"]) == (JobState.FAILED, "model_not_found")


def test_a_job_fails_when_its_files_content_is_lost(site: Worksite, runtime: Runtime) -> None:
    job_id = make_job(site)
    site.storage.delete(found_job(site, job_id).training_path)
    run_jobs(runtime, site)
    job = found_job(site, job_id)
    assert (job.state, (job.error or {})["code"]) == (JobState.FAILED, "file_lost")


def test_a_job_starts_again_when_its_checkpoint_is_lost(site: Worksite, runtime: Runtime) -> None:
    job_id = make_job(site, dies_at=5, until_begun_at=0)
    run_jobs(runtime, site)
    site.storage.delete(found_job(site, job_id).checkpoint_path or "")
    with site.database.session() as session:
        session.get_one(TuningJob, job_id).config = {"stub": {}}
    run_jobs(runtime, site)
    assert_trained(site, job_id)


def test_an_adapter_that_was_not_written_is_not_served(site: Worksite, runtime: Runtime) -> None:
    job_id = make_job(site, leaves="nothing")
    run_jobs(runtime, site)
    assert found_job(site, job_id).state is not JobState.SUCCEEDED
    with site.database.session(read_only=True) as session:
        assert session.query(TenantModel).count() == 0
