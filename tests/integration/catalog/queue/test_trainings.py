"""Fine-tuning jobs as their workers see them: a stale attempt changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import delete, inspect, update
from sqlalchemy.orm import Session

from hmi.catalog import (
    ClaimedTraining,
    Database,
    JobMessage,
    JobState,
    NewFile,
    RegisteredBase,
    Tenant,
    TrainingResult,
    TuningJob,
    domains,
    execute_dml,
    fine_tuning,
    models,
    training_results,
    trainings,
)
from hmi.catalog.registry.deltas import set_delta
from hmi.catalog.registry.files import get_file
from hmi.catalog.schema import Domain, TenantModel
from hmi.errors import InvalidInput, LeaseLost, NotFound
from hmi.spec import MissPolicy
from tests.integration.catalog.seeding import add_base, add_tenant, principal, race
from tests.integration.catalog.training_seeding import add_job, lapse, messages_of, queue_jobs, row, take_job

Act = Callable[[Session, ClaimedTraining], object]


@pytest.fixture
def acme(database: Database) -> Tenant:
    add_base(database)
    return add_tenant(database)


@pytest.fixture
def job(database: Database, acme: Tenant) -> TuningJob:
    return add_job(database, acme)


def claimed(database: Database) -> ClaimedTraining:
    (message,) = queue_jobs(database)
    claim = take_job(database, message)
    assert claim is not None
    return claim


def report(name: str = "file-report") -> NewFile:
    return NewFile(name, "fine-tune-results", "report.json", 10, "0" * 64, f"results/{name}")


def finish(session: Session, claim: ClaimedTraining, artifact: str = "b" * 64) -> models.RegisteredModel:
    result = TrainingResult(artifact, {"rank": 4}, report(f"file-{artifact[:8]}"), trained_tokens=400)
    return training_results.succeed(session, claim, result)


ACTS: dict[str, Act] = {
    "extend": lambda s, c: trainings.extend(s, [JobMessage(c.job_id, c.attempt)], 60),
    "record_progress": lambda s, c: trainings.record_progress(s, c.job_id, c.attempt, {"done": 1}, seconds_left=1.0),
    "record_epoch": lambda s, c: trainings.record_epoch(s, c.job_id, c.attempt, 1, "Epoch 1", {"train_loss": 0.5}),
    "record_checkpoint": lambda s, c: trainings.record_checkpoint(s, c.job_id, c.attempt, "path", 3),
    "release": lambda s, c: trainings.release(s, c.job_id, c.attempt, reason="", count_failure=True),
    "fail": lambda s, c: training_results.fail(s, c, InvalidInput("no")),
}


def test_a_claim_names_what_to_train(database: Database, acme: Tenant) -> None:
    base = row(database, add_job(database, acme, domain="general", miss_policy=MissPolicy.BACKOFF).id)
    with database.session() as session:
        set_delta(session, base.base_id or "", "general", "d" * 64, {})
        domains.create_domain(session, "below")
    claim = claimed(database)
    assert (claim.base, claim.base_artifact, claim.domain, claim.delta) == ("mini", "a" * 64, "general", "d" * 64)
    assert (claim.miss_policy, claim.target, claim.principal.tenant_name) == ("backoff", "sentiment", "acme")
    assert claim.spec is not None
    assert row(database, base.id).started_at


def test_an_old_message_takes_nothing(database: Database, job: TuningJob) -> None:
    (message,) = queue_jobs(database)
    assert take_job(database, JobMessage(job.id, message.attempt - 1)) is None
    assert take_job(database, message)
    assert take_job(database, message) is None  # delivered twice


def test_one_of_many_workers_gets_a_job_when_all_claim_it(database: Database, job: TuningJob) -> None:
    (message,) = queue_jobs(database)
    found = race([lambda: take_job(database, message)] * 5)
    assert sum(each is not None for each in found) == 1


@pytest.mark.parametrize("name", list(ACTS))
def test_a_stale_attempt_changes_nothing(database: Database, job: TuningJob, name: str) -> None:
    stale = claimed(database)
    lapse(database, job.id)
    with database.session() as session:
        assert trainings.expire_leases(session) == 1
    claimed(database)
    before = row(database, job.id)
    with database.session() as session:
        assert not ACTS[name](session, stale)
    after = row(database, job.id)
    columns = inspect(TuningJob).column_attrs.keys()
    assert [getattr(before, column) for column in columns] == [getattr(after, column) for column in columns]


@pytest.mark.parametrize("name", list(ACTS))
def test_a_cancelled_job_is_not_touched_by_who_ran_it(
    database: Database, acme: Tenant, job: TuningJob, name: str
) -> None:
    claim = claimed(database)
    with database.session() as session:
        fine_tuning.cancel_job(session, acme.id, job.id)
    with database.session() as session:
        assert not ACTS[name](session, claim)
    assert row(database, job.id).state is JobState.CANCELLED


def test_a_stale_attempt_serves_no_model(database: Database, acme: Tenant, job: TuningJob) -> None:
    stale = claimed(database)
    lapse(database, job.id)
    with database.session() as session:
        trainings.expire_leases(session)
    current = claimed(database)
    with pytest.raises(LeaseLost), database.session() as session:
        finish(session, stale)
    with database.session(read_only=True) as session:
        assert models.list_models(session, principal(acme)) == []
        with pytest.raises(NotFound):
            get_file(session, acme.id, f"file-{'b' * 8}")
    with database.session() as session:
        assert finish(session, current).name == "acme/sentiment"


def test_the_model_appears_with_the_jobs_end(database: Database, acme: Tenant, job: TuningJob) -> None:
    claim = claimed(database)
    with database.session() as session:
        finish(session, claim)
    ended = row(database, job.id)
    assert (ended.state, ended.fine_tuned_model, ended.trained_tokens) == (
        JobState.SUCCEEDED,
        "acme/sentiment",
        400,
    )
    assert ended.finished_at
    with database.session(read_only=True) as session:
        model = models.get_model(session, principal(acme), "acme/sentiment")
        assert (model.artifact, model.revision, model.summary) == ("b" * 64, 1, {"rank": 4})
        assert get_file(session, acme.id, ended.result_file_id or "").purpose == "fine-tune-results"
    assert messages_of(database, job)[-2:] == [
        "New fine-tuned model created: acme/sentiment",
        "The job has successfully completed",
    ]
    with database.session() as session, pytest.raises(InvalidInput):
        fine_tuning.cancel_job(session, acme.id, job.id)


def test_a_name_that_exists_gets_a_new_revision_of_its_tenants_alone(
    database: Database, acme: Tenant, job: TuningJob
) -> None:
    rival = add_tenant(database, "rival")
    for tenant in (acme, rival):
        with database.session() as session:
            models.register_model(
                session,
                tenant.id,
                "sentiment",
                base="mini",
                domain="general",
                miss_policy=MissPolicy.EXACT,
                artifact="c" * 64,
                summary={},
            )
    claim = claimed(database)
    with database.session() as session:
        assert finish(session, claim).revision == 2
    with database.session(read_only=True) as session:
        assert models.get_model(session, principal(rival), "rival/sentiment").artifact == "c" * 64


def test_no_model_is_registered_when_the_base_was_deleted(database: Database, acme: Tenant, job: TuningJob) -> None:
    claim = claimed(database)
    with database.session() as session:
        execute_dml(session, delete(RegisteredBase).where(RegisteredBase.name == "mini"))
    with pytest.raises(NotFound), database.session() as session:
        finish(session, claim)
    assert row(database, job.id).state is JobState.LEASED
    with database.session(read_only=True) as session:
        assert session.query(TenantModel).count() == 0


def test_a_claim_says_what_is_gone(database: Database, acme: Tenant) -> None:
    with database.session() as session:
        domains.create_domain(session, "movies")
    add_job(database, acme, domain="movies")
    with database.session() as session:
        execute_dml(session, delete(Domain).where(Domain.name == "movies"))
    claim = claimed(database)
    assert (claim.base, claim.domain) == ("mini", None)


def test_an_epoch_is_said_once_when_it_is_trained_twice(database: Database, job: TuningJob) -> None:
    claim = claimed(database)
    for epoch in (1, 2, 1, 2):
        with database.session() as session:
            assert trainings.record_epoch(session, job.id, claim.attempt, epoch, f"Epoch {epoch}", {"train_loss": 0.1})
    assert messages_of(database, job)[2:] == ["Epoch 1", "Epoch 2"]


def test_a_job_ends_when_it_fails_again_and_again_at_one_place(database: Database, job: TuningJob) -> None:
    given_up = []
    for _ in range(3):
        claimed(database)
        lapse(database, job.id)
        with database.session() as session:
            trainings.expire_leases(session)
            given_up.append(trainings.fail_exhausted(session, 3))
    assert given_up == [0, 0, 1]
    ended = row(database, job.id)
    assert (ended.state, (ended.error or {})["code"]) == (JobState.FAILED, "training_crashed")
    assert "w1" in (ended.last_failure or "")
    assert not any("w1" in message for message in messages_of(database, job))


def test_failures_are_reset_when_a_checkpoint_makes_progress(database: Database, job: TuningJob) -> None:
    for step in (10, 20, 30, 30):
        claim = claimed(database)
        with database.session() as session:
            assert trainings.record_checkpoint(session, job.id, claim.attempt, f"{step}", step)
        with database.session() as session:
            assert trainings.release(session, job.id, claim.attempt, reason="it died", count_failure=True)
    assert row(database, job.id).failures == 2
    assert claimed(database).checkpoint_path == "30"
    assert messages_of(database, job)[-1] == "Fine-tuning job resumed from step 30"


def test_a_job_waits_its_time_out_and_holds_nobody_up(database: Database, acme: Tenant, job: TuningJob) -> None:
    claim = claimed(database)
    with database.session() as session:
        assert trainings.release(session, job.id, claim.attempt, reason="", count_failure=False, wait_seconds=1000)
    other = add_job(database, acme)
    assert [message.job_id for message in queue_jobs(database)] == [other.id]
    with database.session() as session:
        execute_dml(session, update(TuningJob).values(not_before=1.0))
    assert [message.job_id for message in queue_jobs(database)] == [job.id]
    assert row(database, job.id).failures == 0


def test_a_job_is_sent_again_when_its_message_was_lost(database: Database, job: TuningJob) -> None:
    (lost,) = queue_jobs(database)
    with database.session() as session:
        assert trainings.requeue_lost(session, 1000) == 0
        assert trainings.requeue_lost(session, -1) == 1
    (sent,) = queue_jobs(database)
    assert sent.attempt == lost.attempt + 1
    assert take_job(database, lost) is None
    assert take_job(database, sent)


def test_a_job_that_was_declined_goes_to_another(database: Database, job: TuningJob) -> None:
    (message,) = queue_jobs(database)
    with database.session() as session:
        assert trainings.decline(session, job.id, message.attempt)
        assert not trainings.decline(session, job.id, message.attempt)
    assert len(queue_jobs(database)) == 1


def test_leases_are_extended_for_those_who_hold_them(database: Database, job: TuningJob) -> None:
    claim = claimed(database)
    before = row(database, job.id).lease_until or 0.0
    with database.session() as session:
        held = trainings.extend(session, [JobMessage(job.id, claim.attempt), JobMessage("ftjob-x", 1)], 1000)
        assert held == {job.id}
        assert trainings.extend(session, [], 1000) == set()
    assert (row(database, job.id).lease_until or 0.0) > before + 500
    with database.session(read_only=True) as session:
        assert trainings.leased(session) == {(job.id, claim.attempt)}
        assert trainings.open_jobs(session) == {job.id}
