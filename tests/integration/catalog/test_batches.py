"""A batch from submit to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from hmi.catalog import (
    Batch,
    BatchStatus,
    Database,
    InputProblem,
    JobMessage,
    JobState,
    NewFile,
    Shard,
    Tenant,
    batches,
    finalizing,
    new_id,
    shards,
)
from hmi.catalog.registry.files import get_file
from hmi.errors import Conflict, InvalidInput, NotFound, Overloaded
from tests.integration.catalog.seeding import (
    add_batch,
    add_file,
    add_tenant,
    end,
    queue,
    race,
    run_all,
    submit,
    take,
)


def _view(database: Database, tenant: Tenant, batch: Batch) -> batches.BatchView:
    with database.session(read_only=True) as session:
        return batches.get_batch(session, tenant.id, batch.id)


def _result_file(batch: Batch, purpose: str = "batch_output") -> NewFile:
    file_id = new_id("file-")
    return NewFile(file_id, purpose, f"{batch.id}.jsonl", 10, "0" * 64, f"files/{file_id}")


def _finalize(database: Database, batch: Batch, **files: Any) -> bool:
    with database.session() as session:
        if not finalizing.begin_finalizing(session, batch.id):
            return False
    with database.session() as session:
        return finalizing.complete(session, batch.id, output=files.get("output"), error=files.get("error"))


def test_a_batch_completes_when_every_shard_has_ended(database: Database) -> None:
    acme = add_tenant(database)
    batch = add_batch(database, acme, shard_count=3)
    assert batch.status is BatchStatus.IN_PROGRESS
    assert batch.expires_at - batch.created_at == pytest.approx(86_400, abs=1)
    messages = queue(database)
    run_all(database, messages[:2])
    assert take(database, messages[2])
    view = _view(database, acme, batch)
    assert (view.completed, view.failed, view.input_tokens, view.output_tokens) == (20, 0, 60, 20)
    assert not _finalize(database, batch)
    assert end(database, messages[2], failed=4)
    with database.session() as session:
        assert finalizing.finalizable(session) == [batch.id]
    output, error = _result_file(batch), _result_file(batch)
    assert _finalize(database, batch, output=output, error=error)
    view = _view(database, acme, batch)
    assert (view.completed, view.failed, view.input_tokens, view.output_tokens) == (26, 4, 90, 30)
    assert (view.batch.status, view.batch.output_file_id) == (BatchStatus.COMPLETED, output.file_id)
    assert view.batch.error_file_id == error.file_id
    times = (view.batch.created_at, view.batch.in_progress_at, view.batch.finalizing_at, view.batch.completed_at)
    assert list(times) == sorted(time for time in times if time is not None)
    assert view.batch.cancelled_at is view.batch.expired_at is view.batch.failed_at is None
    with database.session() as session:
        assert get_file(session, acme.id, output.file_id).path == output.path
        assert finalizing.finalizable(session) == []


def test_the_result_is_published_once_when_two_assemble_it(database: Database) -> None:
    acme = add_tenant(database)
    batch = add_batch(database, acme)
    run_all(database, queue(database))

    def begin() -> bool:
        with database.session() as session:
            return finalizing.begin_finalizing(session, batch.id, lease_seconds=0.0) is not None

    assert begin()
    with database.session() as session:
        assert finalizing.finalizable(session) == [batch.id]  # the first one's lease is over
    assert begin()
    files = [_result_file(batch) for _ in range(4)]

    def complete(file: NewFile) -> bool:
        with database.session() as session:
            return finalizing.complete(session, batch.id, output=file, error=None)

    outcomes = race([lambda file=file: complete(file) for file in files])  # type: ignore[misc]
    assert sorted(map(str, outcomes)) == ["False", "False", "False", "True"]
    published = _view(database, acme, batch).batch.output_file_id
    assert published == files[outcomes.index(True)].file_id
    with database.session() as session:
        for file in files:
            if file.file_id != published:
                with pytest.raises(NotFound):
                    get_file(session, acme.id, file.file_id)


def test_one_process_assembles_when_several_begin_at_once(database: Database) -> None:
    batch = add_batch(database, add_tenant(database))
    run_all(database, queue(database))

    def begin() -> bool:
        with database.session() as session:
            return finalizing.begin_finalizing(session, batch.id) is not None

    assert sorted(map(str, race([begin] * 4))) == ["False", "False", "False", "True"]


def test_nothing_is_published_when_nobody_began_to_assemble(database: Database) -> None:
    batch = add_batch(database, add_tenant(database))
    run_all(database, queue(database))
    with database.session() as session:
        assert not finalizing.complete(session, batch.id, output=None, error=None)


def test_the_first_batch_is_returned_when_its_key_repeats(database: Database) -> None:
    acme, rival = add_tenant(database), add_tenant(database, "rival")
    file, other, theirs = add_file(database, acme), add_file(database, acme), add_file(database, rival)
    with database.session() as session:
        first = submit(session, acme, file, idempotency_key="k1")
        assert submit(session, acme, file, idempotency_key="k1").id == first.id
        assert submit(session, acme, file, idempotency_key="k2").id != first.id
        assert submit(session, rival, theirs, idempotency_key="k1").id != first.id
        with pytest.raises(InvalidInput) as caught:
            submit(session, acme, other, idempotency_key="k1")
    assert caught.value.code == "idempotency_key_reused"


def test_one_batch_is_made_when_equal_requests_race(database: Database) -> None:
    acme = add_tenant(database)
    file = add_file(database, acme)

    def send() -> str:
        with database.session() as session:
            return submit(session, acme, file, idempotency_key="k").id

    assert len(set(race([send] * 5))) == 1
    with database.session() as session:
        assert len(batches.list_batches(session, acme.id).items) == 1
        assert len(session.scalars(select(Shard)).all()) == 2


def test_the_quota_holds_when_submits_race(database: Database) -> None:
    acme = add_tenant(database)
    file = add_file(database, acme)

    def send() -> Batch:
        with database.session() as session:
            return submit(session, acme, file, max_queued_lines=50)  # two of 20 lines fit, no third

    outcomes = race([send] * 5)
    assert sum(isinstance(outcome, Batch) for outcome in outcomes) == 2
    assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == 3
    run_all(database, queue(database))
    assert send().status is BatchStatus.IN_PROGRESS


def test_a_batch_fails_whole_when_its_file_has_problems(database: Database) -> None:
    acme = add_tenant(database)
    file = add_file(database, acme)
    problems = [InputProblem("invalid_json_line", 3, "not JSON: \0\ud800"), InputProblem("empty_file", None, "empty")]
    with database.session() as session:
        batch = submit(session, acme, file, shard_count=0, problems=problems)
    view = _view(database, acme, batch)
    assert view.batch.status is BatchStatus.FAILED
    assert view.batch.failed_at
    assert view.batch.in_progress_at is None
    assert view.batch.errors == [
        {"code": "invalid_json_line", "line": 3, "message": "not JSON: \ufffd?", "param": None},
        {"code": "empty_file", "line": None, "message": "empty", "param": None},
    ]
    assert queue(database) == []
    with database.session() as session:
        assert finalizing.finalizable(session) == []
        with pytest.raises(InvalidInput):
            batches.cancel_batch(session, acme.id, batch.id)


@pytest.mark.parametrize(
    "changes", [{"attributes": {"k": "a\0"}}, {"idempotency_key": "x" * 129}, {"idempotency_key": "a\0"}]
)
def test_a_request_is_refused_when_it_cannot_be_kept(database: Database, changes: dict[str, Any]) -> None:
    acme = add_tenant(database)
    with pytest.raises(InvalidInput):
        add_batch(database, acme, **changes)


def test_shards_that_miss_lines_are_refused_when_submitted(database: Database) -> None:
    with pytest.raises(ValueError, match="add up"):
        add_batch(database, add_tenant(database), total_lines=21)


def test_a_batch_is_absent_when_it_is_anothers(database: Database) -> None:
    acme, rival = add_tenant(database), add_tenant(database, "rival")
    batch = add_batch(database, acme)
    file = add_file(database, acme)
    with database.session() as session:
        for act in (batches.get_batch, batches.cancel_batch):
            with pytest.raises(NotFound):
                act(session, rival.id, batch.id)
        with pytest.raises(NotFound):
            submit(session, rival, file)
        assert batches.list_batches(session, rival.id).items == []
        with pytest.raises(InvalidInput):
            batches.list_batches(session, rival.id, after=batch.id)
    assert _view(database, acme, batch).batch.status is BatchStatus.IN_PROGRESS


def test_batches_are_listed_newest_first_with_counts_when_paged(database: Database) -> None:
    acme = add_tenant(database)
    made = [add_batch(database, acme) for _ in range(3)]
    run_all(database, queue(database)[:2])  # the oldest batch's two shards
    with database.session(read_only=True) as session:
        first = batches.list_batches(session, acme.id, limit=2)
        second = batches.list_batches(session, acme.id, limit=2, after=first.items[-1].batch.id)
    assert [view.batch.id for view in first.items + second.items] == [batch.id for batch in reversed(made)]
    assert (first.has_more, second.has_more) == (True, False)
    assert [view.completed for view in first.items + second.items] == [0, 0, 20]


def test_running_shards_finish_and_waiting_ones_drop_when_a_batch_is_cancelled(database: Database) -> None:
    acme = add_tenant(database)
    batch = add_batch(database, acme, shard_count=4)
    done, leased, queued = queue(database, in_flight=3)
    run_all(database, [done])
    assert take(database, leased)
    with database.session() as session:
        assert batches.cancel_batch(session, acme.id, batch.id).batch.status is BatchStatus.CANCELLING
    with database.session() as session:
        view = batches.cancel_batch(session, acme.id, batch.id)  # again: no change
        assert (view.completed, view.failed) == (10, 20)
        assert finalizing.finalizable(session) == []
    assert take(database, queued) is None
    assert queue(database) == []
    assert end(database, leased)
    assert _finalize(database, batch, output=_result_file(batch), error=_result_file(batch))
    view = _view(database, acme, batch)
    assert (view.batch.status, view.completed, view.failed) == (BatchStatus.CANCELLED, 20, 20)
    assert view.batch.cancelled_at
    assert view.batch.completed_at is None
    with database.session() as session:
        assert [shard.lines for shard in shards.dropped_shards(session, batch.id)] == [10, 10]
        with pytest.raises(InvalidInput):
            batches.cancel_batch(session, acme.id, batch.id)


def test_a_cancelled_batch_shows_as_cancelling_when_it_is_assembled(database: Database) -> None:
    acme = add_tenant(database)
    batch = add_batch(database, acme)
    with database.session() as session:
        batches.cancel_batch(session, acme.id, batch.id)
    with database.session() as session:
        found = finalizing.begin_finalizing(session, batch.id)
        assert found
        assert found.status is BatchStatus.CANCELLING


def test_a_cancel_is_too_late_and_changes_nothing_when_the_result_is_assembled(database: Database) -> None:
    acme = add_tenant(database)
    batch = add_batch(database, acme)
    run_all(database, queue(database))
    with database.session() as session:
        assert finalizing.begin_finalizing(session, batch.id)
    with database.session() as session:
        assert batches.cancel_batch(session, acme.id, batch.id).batch.status is BatchStatus.FINALIZING
        assert finalizing.complete(session, batch.id, output=None, error=None)
    assert _view(database, acme, batch).batch.status is BatchStatus.COMPLETED


def test_waiting_shards_drop_when_the_window_is_over(database: Database) -> None:
    acme = add_tenant(database)
    batch = add_batch(database, acme, shard_count=3)
    done, leased, _ = queue(database)
    run_all(database, [done])
    assert take(database, leased)
    with database.session() as session:
        assert batches.expire_batches(session) == 0
        session.get_one(Batch, batch.id).expires_at = batch.created_at - 1
    with database.session() as session:
        assert batches.expire_batches(session) == 1
        assert batches.expire_batches(session) == 0
    assert end(database, leased)
    assert _finalize(database, batch)
    view = _view(database, acme, batch)
    assert (view.batch.status, view.completed, view.failed) == (BatchStatus.EXPIRED, 20, 10)
    assert view.batch.expired_at
    assert view.batch.completed_at is None


def test_nothing_of_a_batch_is_dispatched_when_its_window_is_over(database: Database) -> None:
    add_batch(database, add_tenant(database), window_seconds=-1.0)
    assert queue(database) == []


def test_a_shard_that_became_pending_late_is_dropped_by_expiry(database: Database) -> None:
    acme = add_tenant(database)
    batch = add_batch(database, acme, shard_count=1)
    with database.session() as session:
        batches.cancel_batch(session, acme.id, batch.id)
        session.scalars(select(Shard)).one().state = JobState.PENDING  # as a release that raced may leave it
    with database.session() as session:
        assert finalizing.finalizable(session) == []
        assert batches.expire_batches(session) == 1
        assert finalizing.finalizable(session) == [batch.id]


def test_no_line_is_lost_when_cancel_and_release_race(database: Database) -> None:
    acme = add_tenant(database)
    for _ in range(5):
        batch = add_batch(database, acme, shard_count=1)
        (message,) = queue(database)
        assert take(database, message)

        def cancel(batch: Batch = batch) -> bool:
            with database.session() as session:
                return batches.cancel_batch(session, acme.id, batch.id).batch.cancelling_at is not None

        def release(message: JobMessage = message) -> bool:
            with database.session() as session:
                return shards.release(session, message.job_id, message.attempt, reason="x", count_failure=False)

        calls: list[Callable[[], bool]] = [cancel, release]
        assert race(calls) == [True, True]
        with database.session() as session:
            batches.expire_batches(session)
        assert _finalize(database, batch)
        assert _view(database, acme, batch).failed == 10


def test_the_finished_shards_must_count_every_line_when_one_ends(database: Database) -> None:
    add_batch(database, add_tenant(database))
    message = queue(database)[0]
    assert take(database, message)
    with pytest.raises(Conflict):
        end(database, message, lines=9)
    assert end(database, message, lines=10)
