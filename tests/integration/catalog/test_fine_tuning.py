"""Fine-tuning jobs as their tenants see them."""

from __future__ import annotations

import pytest

from hmi.catalog import Database, JobState, Tenant, TuningJob, fine_tuning, training_events
from hmi.catalog.registry.files import delete_expired_files, delete_file
from hmi.catalog.registry.tenants import delete_tenant
from hmi.catalog.schema import TuningEvent
from hmi.errors import Conflict, InvalidInput, NotFound, Overloaded
from tests.integration.catalog.seeding import add_base, add_file, add_tenant, race
from tests.integration.catalog.training_seeding import add_job, create, new_job, queue_jobs, row, take_job


@pytest.fixture
def acme(database: Database) -> Tenant:
    add_base(database)
    return add_tenant(database)


def test_a_job_waits_with_its_event_when_made(database: Database, acme: Tenant) -> None:
    job = add_job(database, acme, attributes={"a": "é"})
    with database.session(read_only=True) as session:
        found = fine_tuning.get_job(session, acme.id, job.id)
        (event,) = training_events.list_events(session, acme.id, job.id).items
    assert (found.state, found.attempt, found.target, found.attributes) == (
        JobState.PENDING,
        0,
        "sentiment",
        {"a": "é"},
    )
    assert (event.message, event.level, event.data) == (f"Created fine-tuning job: {job.id}", "info", None)


def test_a_model_gets_a_unique_name_when_none_is_given(database: Database, acme: Tenant) -> None:
    named = [add_job(database, acme, suffix=None, model=f"acme/{'x' * 64}").target for _ in range(2)]
    assert len(set(named)) == 2
    assert all(name.startswith("x" * 50 + "-") and len(name) <= 64 for name in named)


@pytest.mark.parametrize("changes", [{"suffix": "a/b"}, {"suffix": ""}, {"suffix": "a b"}, {"attributes": {"a": "\0"}}])
def test_a_job_is_refused_when_it_cannot_be_stored(
    database: Database, acme: Tenant, changes: dict[str, object]
) -> None:
    with pytest.raises(InvalidInput):
        add_job(database, acme, **changes)


@pytest.mark.parametrize(("field", "code"), [("base", "base_not_found"), ("domain", "domain_not_found")])
def test_a_job_is_refused_when_what_it_starts_from_is_gone(
    database: Database, acme: Tenant, field: str, code: str
) -> None:
    with pytest.raises(NotFound) as caught:
        add_job(database, acme, **{field: "gone"})
    assert caught.value.code == code


def test_a_foreign_job_is_as_absent_as_an_unknown_one(database: Database, acme: Tenant) -> None:
    rival = add_tenant(database, "rival")
    job = add_job(database, acme)
    answers = []
    for job_id in (job.id, "ftjob-unknown"):
        for ask in (fine_tuning.get_job, fine_tuning.cancel_job):
            with database.session() as session, pytest.raises(NotFound) as caught:
                ask(session, rival.id, job_id)
            answers.append(caught.value.message.replace(job_id, "?"))
    assert len(set(answers)) == 1
    with database.session(read_only=True) as session:
        assert fine_tuning.list_jobs(session, rival.id).items == []
        assert training_events.list_events(session, rival.id, job.id).items == []
    assert row(database, job.id).state is JobState.PENDING


def test_a_foreign_file_is_as_absent_as_an_unknown_one(database: Database, acme: Tenant) -> None:
    rival = add_tenant(database, "rival")
    mine, foreign = add_file(database, acme), add_file(database, rival)
    for wrong in ({"training_file_id": foreign.id}, {"validation_file_id": foreign.id}):
        with database.session() as session, pytest.raises(NotFound) as caught:
            create(session, acme, new_job(mine, **wrong))
        assert caught.value.code == "file_not_found"
        assert caught.value.param in {"training_file", "validation_file"}


def test_jobs_and_events_are_listed_in_pages_newest_first(database: Database, acme: Tenant) -> None:
    made = [add_job(database, acme).id for _ in range(3)]
    with database.session(read_only=True) as session:
        page = fine_tuning.list_jobs(session, acme.id, limit=2)
        assert ([job.id for job in page.items], page.has_more) == (made[:0:-1], True)
        page = fine_tuning.list_jobs(session, acme.id, limit=2, after=made[1])
        assert ([job.id for job in page.items], page.has_more) == (made[:1], False)
    for number in range(4):
        with database.session() as session:
            training_events.add_event(session, acme.id, made[0], f"{number}", metrics={"loss": 0.5})
    with database.session(read_only=True) as session:
        first = training_events.list_events(session, acme.id, made[0], limit=3)
        rest = training_events.list_events(session, acme.id, made[0], limit=3, after=first.items[-1].id)
        with pytest.raises(InvalidInput):
            training_events.list_events(session, acme.id, made[1], after=first.items[0].id)
    assert [event.message for event in first.items] == ["3", "2", "1"]
    assert (first.has_more, rest.has_more) == (True, False)
    assert [event.number for event in rest.items] == [2, 1]
    assert {event.type for event in first.items} == {"metrics"}


def test_one_job_is_made_when_two_calls_with_one_key_race(database: Database, acme: Tenant) -> None:
    file = add_file(database, acme)

    def ask() -> str:
        with database.session() as session:
            return create(session, acme, new_job(file), key="k").id

    found = race([ask] * 4)
    assert len(set(found)) == 1
    with database.session() as session, pytest.raises(InvalidInput) as caught:
        create(session, acme, new_job(file, request={"model": "other"}), key="k")
    assert caught.value.code == "idempotency_key_reused"


def test_no_more_jobs_are_taken_than_a_tenant_may_have(database: Database, acme: Tenant) -> None:
    file = add_file(database, acme)

    def ask() -> str:
        with database.session() as session:
            return create(session, acme, new_job(file), most=2).id

    found = race([ask] * 5)
    refused = [each for each in found if isinstance(each, Exception)]
    assert len(refused) == 3
    assert all(isinstance(each, Overloaded) and each.code == "active_jobs_exceeded" for each in refused)
    with database.session() as session:
        fine_tuning.cancel_job(session, acme.id, next(each for each in found if isinstance(each, str)))
    ask()


def test_a_file_cannot_be_deleted_while_a_job_reads_it(database: Database, acme: Tenant) -> None:
    training, validation = add_file(database, acme, expires_at=None), add_file(database, acme)
    with database.session() as session:
        job = create(session, acme, new_job(training, validation_file_id=validation.id))
    for file in (training, validation):
        with database.session() as session, pytest.raises(Conflict) as caught:
            delete_file(session, acme.id, file.id)
        assert caught.value.code == "file_in_use"
    with database.session() as session:
        session.merge(training).expires_at = 1.0
        assert delete_expired_files(session) == []
    with database.session() as session:
        fine_tuning.cancel_job(session, acme.id, job.id)
    with database.session() as session:
        assert [file.id for file in delete_expired_files(session)] == [training.id]
        delete_file(session, acme.id, validation.id)


def test_a_file_is_deleted_or_read_when_both_race(database: Database, acme: Tenant) -> None:
    for _ in range(5):
        file = add_file(database, acme)

        def ask(file: object = file) -> object:
            with database.session() as session:
                return create(session, acme, new_job(file))  # type: ignore[arg-type]

        def delete(file_id: str = file.id) -> object:
            with database.session() as session:
                return delete_file(session, acme.id, file_id)

        made, deleted = race([ask, delete])
        assert isinstance(made, NotFound) != isinstance(deleted, Conflict)


@pytest.mark.parametrize("leased", [False, True])
def test_a_job_ends_at_once_when_cancelled(database: Database, acme: Tenant, leased: bool) -> None:
    job = add_job(database, acme)
    if leased:
        (message,) = queue_jobs(database)
        assert take_job(database, message)
    for _ in range(2):
        with database.session() as session:
            ended = fine_tuning.cancel_job(session, acme.id, job.id)
        assert ended.state is JobState.CANCELLED
        assert ended.finished_at
    assert queue_jobs(database) == []
    with database.session(read_only=True) as session:
        messages = [event.message for event in training_events.list_events(session, acme.id, job.id).items]
    assert messages.count("The job was cancelled") == 1


def test_jobs_are_deleted_with_their_tenant(database: Database, acme: Tenant) -> None:
    add_job(database, acme)
    with database.session() as session:
        delete_tenant(session, "acme")
    with database.session(read_only=True) as session:
        assert session.query(TuningJob).count() == session.query(TuningEvent).count() == 0
