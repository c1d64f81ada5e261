"""A shard has one owner, and who comes late changes nothing."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from hmi.catalog import Batch, BatchStatus, Database, JobMessage, JobState, LineRange, Shard, database_time, shards
from hmi.catalog.batches import cancel_batch
from hmi.errors import InvalidInput
from tests.integration.catalog.seeding import add_batch, add_tenant, end, queue, race, result, run_all, shard, take


def test_a_claim_tells_all_that_running_needs_when_it_succeeds(database: Database) -> None:
    acme = add_tenant(database)
    batch = add_batch(database, acme)
    message = queue(database)[1]
    claimed = take(database, message, owner="hmi-cpu@host", lease=30)
    assert claimed is not None
    with database.session() as session:
        assert claimed.lease_until - database_time(session) == pytest.approx(30, abs=5)
    assert (claimed.shard_id, claimed.attempt, claimed.batch_id) == (message.job_id, 1, batch.id)
    assert (claimed.principal.tenant_id, claimed.principal.is_admin) == (acme.id, False)
    assert (claimed.endpoint, claimed.input_path) == ("/v1/classify", batch.input_path)
    assert (claimed.first_line, claimed.lines, claimed.offset, claimed.length) == (10, 10, 100, 100)
    assert shard(database, message.job_id).owner == "hmi-cpu@host"


def test_one_claim_wins_when_threads_claim_the_same_shard(database: Database) -> None:
    add_batch(database, add_tenant(database), shard_count=10)
    for message in queue(database):
        outcomes = race([lambda m=message, i=i: take(database, m, owner=f"w{i}") for i in range(4)])  # type: ignore[misc]
        winners = [index for index, outcome in enumerate(outcomes) if outcome is not None]
        assert len(winners) == 1, outcomes
        assert shard(database, message.job_id).owner == f"w{winners[0]}"


def test_a_claim_is_refused_when_its_attempt_is_not_current(database: Database) -> None:
    add_batch(database, add_tenant(database), shard_count=1)
    (first,) = queue(database)
    assert take(database, JobMessage(first.job_id, first.attempt + 1)) is None
    with database.session() as session:
        assert shards.requeue_lost(session, timeout_seconds=-1) == 1
    assert take(database, first) is None  # pending
    (second,) = queue(database)
    assert second.attempt == first.attempt + 1
    assert take(database, first) is None  # the message that was not lost after all
    assert take(database, second) is not None
    assert take(database, second) is None  # delivered twice


def test_a_claim_is_refused_when_its_batch_has_stopped(database: Database) -> None:
    batch = add_batch(database, add_tenant(database))
    late, _ = queue(database)
    with database.session() as session:
        session.get_one(Batch, batch.id).expires_at = batch.created_at - 1
    assert take(database, late) is None
    with database.session() as session:
        stopping = session.get_one(Batch, batch.id)
        stopping.expires_at, stopping.status = batch.expires_at, BatchStatus.CANCELLING
    assert take(database, late) is None  # though a dispatch that raced left it queued


def test_a_stale_worker_cannot_finish_when_its_shard_was_reclaimed(database: Database) -> None:
    add_batch(database, add_tenant(database), shard_count=1)
    (first,) = queue(database)
    assert take(database, first, owner="slow", lease=-1)
    with database.session() as session:
        assert shards.expire_leases(session) == 1
    assert not end(database, first)
    (second,) = queue(database)
    assert not end(database, first)
    assert not end(database, second)  # queued, not leased
    assert take(database, second, owner="fast")
    assert not end(database, first)
    with database.session() as session:
        assert not shards.release(session, first.job_id, first.attempt, reason="x", count_failure=True)
        assert shards.extend(session, [first], 60) == set()
    assert end(database, second)
    assert not end(database, second)
    found = shard(database, first.job_id)
    assert (found.state, found.attempt, found.owner, found.failures) == (JobState.DONE, 2, "fast", 1)
    assert found.last_failure == "the lease of slow ran out"


def test_one_result_counts_when_finish_and_expiry_race(database: Database) -> None:
    add_batch(database, add_tenant(database), shard_count=6, lines=10)
    for message in queue(database):
        assert take(database, message, lease=-1)

        def expire() -> bool:
            with database.session() as session:
                return shards.expire_leases(session) == 1

        finished, expired = race([lambda m=message: end(database, m), expire])  # type: ignore[misc]
        assert finished is not expired
        state = shard(database, message.job_id).state
        assert state is (JobState.DONE if finished else JobState.PENDING)


def test_leases_are_prolonged_when_they_are_still_held(database: Database) -> None:
    add_batch(database, add_tenant(database), shard_count=3)
    held, lost, queued = queue(database)
    assert take(database, held, lease=5)
    assert take(database, lost, lease=-1)
    with database.session() as session:
        shards.expire_leases(session)
    with database.session() as session:
        assert shards.extend(session, [held, lost, queued], 500) == {held.job_id}
        assert shards.extend(session, [], 500) == set()
        until = database_time(session) + 400
    assert (shard(database, held.job_id).lease_until or 0) > until


def test_failures_are_counted_when_a_release_counts_them(database: Database) -> None:
    add_batch(database, add_tenant(database), shard_count=1)
    shard_id = ""
    for attempt, counted in enumerate((False, True, True), start=1):
        (message,) = queue(database)
        shard_id = message.job_id
        assert message.attempt == attempt
        assert take(database, message)
        with database.session() as session:
            assert shards.release(
                session, message.job_id, message.attempt, reason=f"r{attempt}\0", count_failure=counted
            )
    found = shard(database, shard_id)
    assert (found.state, found.failures, found.last_failure) == (JobState.PENDING, 2, "r3\ufffd")
    assert found.lease_until is None


def test_a_shard_is_dropped_when_released_in_a_stopped_batch(database: Database) -> None:
    acme = add_tenant(database)
    batch = add_batch(database, acme, shard_count=2)
    given, lapsed = queue(database)
    assert take(database, given)
    assert take(database, lapsed, lease=-1)
    with database.session() as session:
        cancel_batch(session, acme.id, batch.id)
    with database.session() as session:
        assert shards.release(session, given.job_id, given.attempt, reason="stopping", count_failure=False)
        assert shards.expire_leases(session) == 1
        assert len(shards.dropped_shards(session, batch.id)) == 2


def test_a_queued_shard_waits_again_when_its_message_was_lost(database: Database) -> None:
    add_batch(database, add_tenant(database), shard_count=2)
    lost, leased = queue(database)
    assert take(database, leased)
    with database.session() as session:
        assert shards.requeue_lost(session, timeout_seconds=60) == 0
        assert shards.requeue_lost(session, timeout_seconds=-1) == 1
    found = shard(database, lost.job_id)
    assert (found.state, found.failures) == (JobState.PENDING, 0)


def _fail(database: Database, message: JobMessage) -> None:
    assert take(database, message, lease=-1)
    with database.session() as session:
        assert shards.expire_leases(session) == 1


def test_the_bad_line_is_found_and_fails_alone_when_it_kills_its_worker_again_and_again(database: Database) -> None:
    acme = add_tenant(database)
    batch = add_batch(database, acme, shard_count=1, lines=16)
    bad, deaths, max_failures = 11, 0, 3
    quarantined: set[int] = set()
    for _ in range(200):
        with database.session() as session:
            for each in shards.exhausted(session, max_failures):
                if each.lines == 1:
                    assert shards.fail_line(session, each.id, result(1, failed=1))
                    continue
                half = each.lines // 2
                parts = [
                    LineRange(each.first_line, half, each.offset, half * 10),
                    LineRange(
                        each.first_line + half, each.lines - half, each.offset + half * 10, each.length - half * 10
                    ),
                ]
                assert shards.split(session, each.id, parts)
        messages = queue(database)
        if not messages:
            break
        for message in messages:
            found = shard(database, message.job_id)
            with database.session() as session:
                if shards.is_quarantined(session, found.id):
                    quarantined.add(found.first_line)
            if found.first_line <= bad < found.first_line + found.lines:
                _fail(database, message)
                deaths += 1
            else:
                run_all(database, [message], lines=found.lines)
    with database.session() as session:
        done = shards.finished_shards(session, batch.id)
        covered = [line for each in done for line in range(each.first_line, each.first_line + each.lines)]
        assert covered == list(range(16))
        assert [each.first_line for each in done if each.failed] == [bad]
        splits = select(func.count()).where(Shard.state == JobState.SPLIT)
        assert session.scalars(splits).one() == 4
    assert quarantined == {0, 8, 12, 10, 11}  # what shared a shard with the bad line, and no more of it than that
    assert deaths == 3 + 1 + 1 + 1 + 3  # a whole shard, its halves, then the line alone from the start


def test_a_split_is_refused_when_it_would_lose_lines_or_is_stale(database: Database) -> None:
    add_batch(database, add_tenant(database), shard_count=1, lines=4)
    (message,) = queue(database)
    halves = [LineRange(0, 2, 0, 20), LineRange(2, 2, 20, 20)]
    with database.session() as session:
        assert not shards.split(session, message.job_id, halves)  # queued
        assert not shards.split(session, "shard_unknown", halves)
        shards.requeue_lost(session, -1)
    with database.session() as session:
        for parts in ([LineRange(0, 4, 0, 40)], [LineRange(0, 2, 0, 20), LineRange(2, 1, 20, 10)]):
            with pytest.raises(InvalidInput):
                shards.split(session, message.job_id, parts)
        assert shards.split(session, message.job_id, halves)
        assert not shards.split(session, message.job_id, halves)


def test_a_whole_shard_is_not_failed_when_only_a_line_may_be(database: Database) -> None:
    add_batch(database, add_tenant(database), shard_count=1, lines=2)
    (message,) = queue(database)
    with database.session() as session:
        shards.requeue_lost(session, -1)
        assert not shards.fail_line(session, message.job_id, result(2, failed=2))
